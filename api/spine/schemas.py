"""Models that several parts of the API share."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field


def _refuse_unstorable(text: str) -> str:
    if any(char == "\x00" or "\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("NUL characters and lone surrogates cannot be stored")
    return text


# Text that every database and JSON can store.
Text = Annotated[str, AfterValidator(_refuse_unstorable)]


class CaseInsensitiveEnum(StrEnum):
    """An enumeration whose values are written in one case and accepted in any."""

    @classmethod
    def _missing_(cls, value: object) -> "CaseInsensitiveEnum | None":
        wanted = value.upper() if isinstance(value, str) else None
        return next((member for member in cls if member.value.upper() == wanted), None)


class ErrorCategory(CaseInsensitiveEnum):
    """The category of a failure."""

    NETWORK = "NETWORK"
    DATABASE = "DATABASE"
    STORAGE = "STORAGE"
    SOURCE = "SOURCE"
    PARSE = "PARSE"
    VALIDATION = "VALIDATION"
    CONFIG = "CONFIG"
    AUTH = "AUTH"
    PIPELINE = "PIPELINE"
    ORCHESTRATION = "ORCHESTRATION"
    INTERNAL = "INTERNAL"
    UNKNOWN = "UNKNOWN"


class ActionResponse(BaseModel):
    """The result of a change."""

    id: str
    status: str = Field(examples=["cancelled"])
    message: str
