"""One setting: its variable, its default on each stack, and what takes its value."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field


@dataclass(frozen=True)
class Setting:
    """A setting's variable, its default on each stack, and what follows from it.

    `gives` are the fields of resources that take its value, as "<resource>.<field>".
    """

    embedded: str
    cluster: str
    gives: tuple[str, ...]
    secret: bool
    variable: str = ""
    help: str = ""

    def __call__(self, earlier: dict[str, Any]) -> str:
        """Return the default, given the settings declared before this one."""
        default = self.embedded if earlier.get("stack", "embedded") == "embedded" else self.cluster
        home: Path | None = earlier.get("home")
        # vLLM has no judge beside it, as the embedded server has.
        judge_port = 8001 if earlier.get("vllm_python") else 8000
        bucket = earlier.get("s3_data_bucket")
        return default.format(
            home=home,
            home_uri=home and home.as_uri(),
            home_sqlite=home and _sqlite_folder(home),
            judge_port=judge_port,
            s3_data_bucket=bucket,
        )


def setting(
    default: str = "",
    *gives: str,
    cluster: str | None = None,
    secret: bool = False,
    variable: str | None = None,
) -> Any:
    """Declare a setting; without `cluster` its default is the same on both stacks.

    Its variable is its name in capitals, unless `variable` is given. Its help is the text below
    the declaration.
    """
    declared = Setting(default, default if cluster is None else cluster, gives, secret)
    return Field(default_factory=declared, validation_alias=variable)


def _sqlite_folder(folder: Path) -> str:
    """Return the URL of a folder for SQLite files, as SQLAlchemy and MLflow read it."""
    quoted = str(folder).replace("%", "%25").replace("?", "%3F")
    # MLflow would make the folder of a path that begins with sqlite:///, and unquotes nothing.
    return f"sqlite:///{folder}" if quoted == str(folder) else f"sqlite+pysqlite:///{quoted}"
