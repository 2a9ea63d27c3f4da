"""The base of every settings model: frozen, keyword-only, unknown keys refused."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Settings(BaseModel):
    """A frozen piece of configuration; an unknown key is an error that names its path."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    quiet: ClassVar[frozenset[str]] = frozenset()
    """Fields that are left out of what is written while they have their default: content that is older than they are
    keeps its id."""

    @model_serializer(mode="wrap")
    def _without_quiet_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = write(self)
        for name in type(self).quiet:
            if getattr(self, name) == type(self).model_fields[name].default:
                content.pop(name, None)
        return content
