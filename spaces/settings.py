"""The base of every settings model: frozen, keyword-only, unknown keys refused."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Settings(BaseModel):
    """A frozen piece of configuration; an unknown key is an error that names its path."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class GrownSettings(Settings):
    """Settings with keys that files and identities of earlier versions lack.

    Where such a key is at its default it is not written, so that what was identified before has the same identity.
    """

    LATER: ClassVar[frozenset[str]]
    """Names of these keys."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        fields = type(self).model_fields
        return {
            key: value
            for key, value in written.items()
            if key not in self.LATER or getattr(self, key) != fields[key].get_default(call_default_factory=True)
        }
