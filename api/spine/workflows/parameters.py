"""Refuse parameters that a workflow does not take, naming each."""

from typing import Any

from spine.errors import BadRequest, FieldError
from spine.prefect.client import Deployment
from spine.prefect.parameters import check_parameters


def refuse_wrong_parameters(workflow_name: str, deployment: Deployment, given: dict[str, Any], field: str) -> None:
    """Check the parameters `given` in the body's `field` against what `deployment` takes beside its own.

    Raises `BadRequest` naming each wrong parameter.
    """
    problems = check_parameters(deployment.parameter_openapi_schema, deployment.parameters, given)
    if problems:
        named = "; ".join(f"{'.'.join(map(str, problem.loc)) or field}: {problem.msg}" for problem in problems)
        located = [FieldError(("body", field, *problem.loc), problem.msg) for problem in problems]
        raise BadRequest(f"The workflow {workflow_name!r} does not take these parameters: {named}.", located)
