"""Models that all nouns of the API share."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field


def _storable(text: str) -> str:
    if any(char == "\x00" or "\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("NUL characters and lone surrogates cannot be stored")
    return text


# Text that every database and JSON can carry.
Text = Annotated[str, AfterValidator(_storable)]


class CaseInsensitiveEnum(StrEnum):
    """An enumeration that is written in one case and read in any."""

    @classmethod
    def _missing_(cls, value: object) -> "CaseInsensitiveEnum | None":
        wanted = value.upper() if isinstance(value, str) else None
        return next((member for member in cls if member.value.upper() == wanted), None)


class ActionResponse(BaseModel):
    """What a change did."""

    id: str
    status: str = Field(examples=["cancelled"])
    message: str
