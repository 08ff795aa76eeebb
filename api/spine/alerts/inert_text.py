"""Text of flows and callers, made inert: no service turns a part of it into a mention, a link or formatting code.

A zero-width space breaks what services look for. The text looks the same, and links stay as they are: each shows where
it leads.
"""

import re

_BREAK = "\N{ZERO WIDTH SPACE}"
# Other control characters have an effect on terminals. Directional overrides can make a link look like another one.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# Not the @ of an email address, unless a group of people follows, which some services also find there.
_MENTION = re.compile(r"(?<![\w.+-])@(?=[\w<{\[])|@(?=everyone|here|channel|all|group|team|room)", re.IGNORECASE)
# Links that show another text than their address, as in Markdown, BBCode and Slack's format, and any markup with <.
_MARKUP = re.compile(r"(?<=\])(?=[(\[:])|(?<=<)(?=\S)|(?<=\[)(?=/?(?:url|code|img|user|link)\b)", re.IGNORECASE)


# Slack's format of a link with another text, which Mattermost and Rocket.Chat read, too.
_LINK_WITH_TEXT = re.compile(r"<(?=\S)[^<>|]*\|[^<>]*>?")


def readable(text: str) -> str:
    """The text without control characters other than line ends and tabs, and without directional overrides."""
    return _HIDDEN.sub("\N{REPLACEMENT CHARACTER}", re.sub(r"\r\n?", "\n", text))


def one_line(text: str) -> str:
    """The text on one line, readable: a header or a field cannot be followed by another one."""
    return readable(" ".join(text.split()))


def inert(text: str) -> str:
    """The text, readable and without mentions, hidden links and markup."""
    text = _LINK_WITH_TEXT.sub(lambda link: link[0].replace("|", "\N{BROKEN BAR}"), readable(text))
    return _MARKUP.sub(_BREAK, _MENTION.sub(f"@{_BREAK}", text))


def escaped_for_slack(text: str) -> str:
    """Text in Slack's format: its mentions and links begin and end with characters that are escaped here."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
