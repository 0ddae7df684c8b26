"""The promotion that was begun last, and the history of what was live, as tags of the model."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar, get_args

from pydantic import Field, ValidationError

from lora_assets.errors import LoraAssetsError, validation_line
from lora_assets.gates.rollback import recorded_live, was_live
from lora_assets.records import RECORD_FORMAT
from lora_assets.records.history import LIVE, Change, Standing, change, numbered
from lora_assets.records.model_version import Alias, ModelVersion, Promotion
from lora_assets.resources.mlflow_client import NotInMlflow, mlflow_client
from lora_assets.resources.one_model import OneModel
from lora_assets.resources.signature import VERDICT_KEY, read_signed, signed
from lora_assets.resources.version_tags import is_ours, version_record

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowModelVersion
    from mlflow.entities.model_registry import RegisteredModel

_PROMOTION = "lora_assets.promotion"
_HISTORY = "lora_assets.history."
_FIELDS = {"source_alias", "version", "replaced", "run_id", "done"}
"""Those that releases before the history know: they refuse any other."""
TO_SIGN = "If what the aliases say is right, sign it with 'lora-assets history --sign'."
_Kept = TypeVar("_Kept", Promotion, Change)
_log = logging.getLogger(__name__)


class PromotionLog(OneModel):
    """Keeps what is set out to be done before its first step, and what came of it for ever.

    MLflow changes a tag without asking what it was. So the record of the last promotion belongs
    to whoever wrote it last, and each entry of the history has a tag of its own, named by its
    number and its token: two writers at once lose no entry.

    With a `verdict_key`, what is not signed with it for its own place does not count.
    """

    tracking_uri: str = Field(min_length=1)
    verdict_key: str = Field("", repr=False)

    def promotion(self) -> Promotion | None:
        """Return the promotion that is under way or was cut short; None where there is none."""
        last = self.last_promotion()
        return last if last is not None and not last.done else None

    def last_promotion(self) -> Promotion | None:
        """Return the promotion or rollback that was begun last; None before the first.

        A record that can't be read is named in the log, and passed over.
        """
        return self._last(self._tags())

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
        if self._read(Change, name := _entry_tag(entry), self._tags()) is None:
            self._set_tag(name, entry.model_dump_json())

    def history(self) -> tuple[Change, ...]:
        """Return all entries, the oldest first.

        One that can't be read is named in the log, and passed over.
        """
        return self._history(self._tags())

    def standing(self) -> Standing:
        """Return what is live by the history, and how that came about."""
        model = self._model()
        tags = model.tags if model else {}
        return self.standing_of(self._aliases_of(model), self._last(tags), self._history(tags))

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
        previous = aliases.get("previous")
        if self.verdict_key and previous is not None and previous.version not in was_live(history):
            aliases = {alias: each for alias, each in aliases.items() if alias != "previous"}
        standing = Standing(aliases=aliases, live=live, last=last, history=history)
        if live is None and "live" in self.others():
            return standing
        if standing.unfinished is not None and standing.is_reached:
            return standing
        recorded = recorded_live(last, history)
        if isinstance(recorded, int):
            same = live is not None and live.version == recorded
            recorded = live if same else self.resolve(f"version:{recorded}")
        before_it = None if self.verdict_key else live
        return standing.model_copy(update={"live": recorded or before_it})

    def sign_aliases(self, by: str) -> None:
        """Add an entry that `live` and `previous` are as the aliases say."""
        if not self.verdict_key:
            raise LoraAssetsError(f"{VERDICT_KEY} is not set", "Set it where this is typed.")
        promotion = Promotion(
            source_alias="live",
            version=self.resolve("alias:live"),
            replaced=self._aliases_of(self._model()).get("previous"),
            run_id="",
            by=by,
            why="signed as the aliases stood",
        )
        self.record(numbered(promotion, self.history(), None), LIVE)

    def aliases(self) -> Mapping[str, ModelVersion]:
        """Return what each of our aliases points at; one that is not set is absent."""
        return self._aliases_of(self._model())

    def others(self) -> Mapping[str, int]:
        """Return the aliases that `aliases` leaves out, with the numbers of their versions.

        Others set them, or their versions were registered by others and not adopted yet.
        """
        model = self._model()
        ours, numbers = self._aliases_of(model), model.aliases if model else {}
        return {alias: int(numbers[alias]) for alias in numbers if alias not in ours}

    def resolve(self, source: str) -> ModelVersion:
        """Return the model version behind `alias:<name>` or `version:<number>`."""
        raise NotImplementedError

    @property
    def _client(self) -> "MlflowClient":
        return mlflow_client(self.tracking_uri)

    def _model(self) -> "RegisteredModel | None":
        try:
            return self._client.get_registered_model(self.model_name)
        except NotInMlflow:
            return None

    def _aliases_of(self, model: "RegisteredModel | None") -> Mapping[str, ModelVersion]:
        numbers = model.aliases if model else {}
        named = {alias: str(numbers[alias]) for alias in get_args(Alias) if alias in numbers}
        versions = {number: self._version(number) for number in set(named.values())}
        return {
            alias: version_record(versions[number])
            for alias, number in named.items()
            if is_ours(versions[number].tags)
        }

    def _version(self, number: str) -> "MlflowModelVersion":
        try:
            return self._client.get_model_version(self.model_name, number)
        except NotInMlflow:
            raise LoraAssetsError(
                f"{self.model_name} has no version {number}",
                "Give one of those that MLflow's page of the model lists.",
            ) from None

    def _tags(self) -> Mapping[str, str]:
        model = self._model()
        return model.tags if model else {}

    def _set_tag(self, name: str, text: str) -> None:
        kept = signed(self.verdict_key, f"{self.model_name}\0{name}", text)
        self._client.set_registered_model_tag(self.model_name, name, kept)

    def _last(self, tags: Mapping[str, str]) -> Promotion | None:
        last = self._read(Promotion, _PROMOTION, tags)
        # MLflow failed after the entry, or somebody has put an older record back.
        if last is not None and self._read(Change, _entry_tag(change(last, "")), tags) is not None:
            return last.model_copy(update={"done": True})
        return last

    def _history(self, tags: Mapping[str, str]) -> tuple[Change, ...]:
        entries = (self._read(Change, name, tags) for name in tags if name.startswith(_HISTORY))
        known = (entry for entry in entries if entry is not None)
        return tuple(sorted(known, key=lambda entry: (entry.number, entry.at)))

    def _read(self, kind: type[_Kept], name: str, tags: Mapping[str, str]) -> _Kept | None:
        if name not in tags:
            return None
        text, wrong = read_signed(self.verdict_key, f"{self.model_name}\0{name}", tags[name])
        if not wrong:
            try:
                found = kind.model_validate_json(text, extra="ignore")
            except ValidationError as error:
                wrong = f"it can't be read ({validation_line(error)})"
            else:
                if found.record_format > RECORD_FORMAT:
                    # Passed over, it would let an older entry say what is live.
                    _log.warning("A later release wrote tag %s: its known fields count", name)
                return found
        _log.warning("Tag %s of the registered model is passed over: %s", name, wrong)
        return None


def _entry_tag(entry: Change) -> str:
    return f"{_HISTORY}{entry.number}-{entry.token}"
