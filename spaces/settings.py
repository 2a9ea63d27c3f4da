"""The base of every settings model: frozen, keyword-only, unknown keys refused."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen piece of configuration; an unknown key is an error that names its path."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
