"""What every section of the settings is: frozen, closed, and consistent in itself."""

from collections.abc import Iterator
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

CONFLICT = "conflict"


class Conflict(NamedTuple):
    """Settings that are valid alone and invalid together: the one to name, why, and the others involved."""

    name: str
    wrong: str
    others: tuple[str, ...]


class Section(BaseModel):
    """One section. Raises pydantic's ValidationError, without values in it, where something is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def conflicts(self) -> Iterator[Conflict]:
        """Yield what is wrong between the settings of this section."""
        yield from ()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if found := list(self.conflicts()):
            wrong = "; ".join(f"{conflict.name} {conflict.wrong}" for conflict in found)
            # All at once: of several validators pydantic would report the first alone.
            raise PydanticCustomError(CONFLICT, "{wrong}", {"wrong": wrong, "conflicts": found})
        return self


def certificate_conflicts(cert_file: str, key_file: str, key_password_file: str) -> Iterator[Conflict]:
    """Yield what is wrong with a client certificate."""
    if key_file and not cert_file:
        yield Conflict(
            "key_file", "needs cert_file, the certificate that this key belongs to", ("cert_file",)
        )
    if key_password_file and not cert_file:
        yield Conflict("key_password_file", "needs cert_file, and a key that it opens", ("cert_file",))
