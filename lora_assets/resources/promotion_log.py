"""The promotion that was begun last, and the history of what was live, as tags of the model."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from lora_assets.errors import validation_line
from lora_assets.gates.rollback import recorded_live
from lora_assets.records.history import LIVE, Change, Standing, change
from lora_assets.records.model_version import ModelVersion, Promotion
from lora_assets.resources.one_model import OneModel

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

_PROMOTION = "lora_assets.promotion"
_HISTORY = "lora_assets.history."
_FIELDS = {"source_alias", "version", "replaced", "run_id", "done"}
"""Those that releases before the history know: they refuse any other."""
_Kept = TypeVar("_Kept", Promotion, Change)


class PromotionLog(OneModel):
    """Keeps what is set out to be done before its first step, and what came of it for ever.

    MLflow changes a tag without asking what it was. So the record of the last promotion belongs
    to whoever wrote it last, and each entry of the history has a tag of its own, named by its
    number and its token: two writers at once lose no entry.
    """

    def promotion(self) -> Promotion | None:
        """Return the promotion that is under way or was cut short; None where there is none."""
        last = self.last_promotion()
        return last if last is not None and not last.done else None

    def last_promotion(self) -> Promotion | None:
        """Return the promotion or rollback that was begun last; None before the first.

        A record that can't be read is named in the log, and passed over.
        """
        return _last(self._tags())

    def begin_promotion(self, promotion: Promotion) -> None:
        """Keep what a promotion sets out to do: from here on every other one stops."""
        self._set_tag(_PROMOTION, promotion.model_dump_json())

    def holds(self, promotion: Promotion) -> bool:
        """Return whether no other promotion or rollback was begun since this one."""
        last = self.promotion()
        return last is not None and last.token == promotion.token

    def end_promotion(self, promotion: Promotion, outcome: str = LIVE, why: str = "") -> None:
        """Keep how it ended: an entry of the history, then that nothing is left to be done.

        One that changed nothing leaves no entry.
        """
        if promotion.action != "nothing changed":
            self.record(promotion, outcome, why)
        done = promotion.model_copy(update={"done": True})
        self._set_tag(_PROMOTION, done.model_dump_json(include=_FIELDS))

    def record(self, promotion: Promotion, outcome: str, why: str = "") -> None:
        """Add an entry to the history, unless this promotion has one."""
        entry = change(promotion, outcome, why)
        name = f"{_HISTORY}{entry.number}-{entry.token}"
        if name not in self._tags():
            self._set_tag(name, entry.model_dump_json())

    def history(self) -> tuple[Change, ...]:
        """Return all entries, the oldest first.

        One that can't be read is named in the log, and passed over.
        """
        return _history(self._tags())

    def standing(self) -> Standing:
        """Return what is live by the history, and how that came about."""
        model = self._model()
        tags = model.tags if model else {}
        return self.standing_of(self._aliases_of(model), _last(tags), _history(tags))

    def standing_of(
        self,
        aliases: Mapping[str, ModelVersion],
        last: Promotion | None,
        history: tuple[Change, ...],
    ) -> Standing:
        """Return what is live by these aliases and records.

        Between the aliases of a promotion and its end, it is what the alias says. Where that
        points at a version of others, nothing of ours is live.
        """
        live = aliases.get("live")
        standing = Standing(aliases=aliases, live=live, last=last, history=history)
        if live is None and "live" in self.others():
            return standing
        if standing.unfinished is not None and standing.is_reached:
            return standing
        recorded = recorded_live(last, history)
        if isinstance(recorded, int):
            same = live is not None and live.version == recorded
            recorded = live if same else self.resolve(f"version:{recorded}")
        return standing.model_copy(update={"live": recorded or live})

    def others(self) -> Mapping[str, int]:
        """Return the aliases that are not ours, with the numbers of their versions."""
        raise NotImplementedError

    def resolve(self, source: str) -> ModelVersion:
        """Return the model version behind `alias:<name>` or `version:<number>`."""
        raise NotImplementedError

    @property
    def _client(self) -> "MlflowClient":
        raise NotImplementedError

    def _model(self) -> "RegisteredModel | None":
        raise NotImplementedError

    def _aliases_of(self, model: "RegisteredModel | None") -> Mapping[str, ModelVersion]:
        raise NotImplementedError

    def _tags(self) -> Mapping[str, str]:
        model = self._model()
        return model.tags if model else {}

    def _set_tag(self, name: str, text: str) -> None:
        self._client.set_registered_model_tag(self.model_name, name, text)


def _last(tags: Mapping[str, str]) -> Promotion | None:
    stored = tags.get(_PROMOTION)
    return _read(Promotion, _PROMOTION, stored) if stored else None


def _history(tags: Mapping[str, str]) -> tuple[Change, ...]:
    stored = {name: text for name, text in tags.items() if name.startswith(_HISTORY)}
    entries = (_read(Change, name, text) for name, text in stored.items())
    known = (entry for entry in entries if entry is not None)
    return tuple(sorted(known, key=lambda entry: (entry.number, entry.at)))


def _read(kind: type[_Kept], name: str, text: str) -> _Kept | None:
    try:
        return kind.model_validate_json(text, extra="ignore")
    except ValidationError as error:
        message = "Tag %s of the registered model is passed over: it can't be read (%s)"
        logging.getLogger(__name__).warning(message, name, validation_line(error))
        return None
