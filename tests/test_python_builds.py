"""What differs between versions and builds of Python, and so is never used without care."""

import ast
import re

from tests.support.source_code import python_files, tree_of


def test_every_tls_context_refuses_old_versions() -> None:
    makers = {"create_default_context", "SSLContext", "create_ssl_context"}
    for name in python_files("api"):
        calls = [node for node in ast.walk(tree_of(name)) if isinstance(node, ast.Call)]
        modern = {id(one) for call in calls if called(call) == "modern" for one in call.args}
        assert not [call.lineno for call in calls if called(call) in makers and id(call) not in modern], name


def test_no_regular_expression_has_what_python_matches_wrongly() -> None:
    # Possessive and atomic groups match too much before Python 3.11.5.
    wrong = re.compile(r"\(\?>|[)}][*+?]\+|\)\{[^}]*\}\+")
    for name in python_files("api", "deployments", "flows"):
        texts = [node.value for node in ast.walk(tree_of(name)) if isinstance(node, ast.Constant)]
        found = [one for one in texts if wrong.search(one.decode("latin-1") if isinstance(one, bytes) else str(one))]
        assert not found, name


def called(call: ast.Call) -> str:
    """The last name of what is called."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))
