"""optuna-dashboard over the storages of one study or of a campaign: a server process of `qtarget ui`.

    QTARGET_STORAGES='["sqlite:////a/study.db", ...]' python -m qtarget.search.commands.dashboard HOST PORT

The URLs come by the environment, which only their owner can read: they may hold passwords.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Container, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from ..store.storage import open_storage

VARIABLE = "QTARGET_STORAGES"


class SeveralStorages(BaseStorage):
    """Storages seen as one: of N storages, the study or trial i of storage s is number i·N + s here.

    What is asked or written goes to the storage it belongs to; new studies are refused.
    """

    def __init__(self, storages: Sequence[BaseStorage]) -> None:
        self._storages = storages

    def _there(self, number: int) -> tuple[BaseStorage, int]:
        local, index = divmod(number, len(self._storages))
        return self._storages[index], local

    def number(self, local: int, index: int) -> int:
        """What is called here what storage `index` calls `local`."""
        return local * len(self._storages) + index

    def get_all_studies(self) -> list[FrozenStudy]:
        return [self._study(study, index) for index, each in enumerate(self._storages)
                for study in each.get_all_studies()]  # fmt: skip

    def _study(self, study: FrozenStudy, index: int) -> FrozenStudy:
        shown = copy.copy(study)
        shown._study_id = self.number(study._study_id, index)
        return shown

    def _trial(self, trial: FrozenTrial, index: int) -> FrozenTrial:
        shown = copy.copy(trial)
        shown._trial_id = self.number(trial._trial_id, index)
        return shown

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        storage, local = self._there(study_id)
        index = study_id % len(self._storages)
        return [self._trial(each, index) for each in storage.get_all_trials(local, deepcopy=deepcopy, states=states)]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        storage, local = self._there(trial_id)
        return self._trial(storage.get_trial(local), trial_id % len(self._storages))

    def get_study_id_from_name(self, study_name: str) -> int:
        for index, storage in enumerate(self._storages):
            try:
                return self.number(storage.get_study_id_from_name(study_name), index)
            except KeyError:
                continue
        raise KeyError(study_name)

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        raise RuntimeError("several storages are shown as one, which cannot tell where a new study belongs")

    def delete_study(self, study_id: int) -> None:
        storage, local = self._there(study_id)
        storage.delete_study(local)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        storage, local = self._there(study_id)
        storage.set_study_user_attr(local, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        storage, local = self._there(study_id)
        storage.set_study_system_attr(local, key, value)

    def get_study_name_from_id(self, study_id: int) -> str:
        storage, local = self._there(study_id)
        return storage.get_study_name_from_id(local)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        storage, local = self._there(study_id)
        return storage.get_study_directions(local)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        storage, local = self._there(study_id)
        return storage.get_study_user_attrs(local)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        storage, local = self._there(study_id)
        return storage.get_study_system_attrs(local)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        storage, local = self._there(study_id)
        return self.number(storage.create_new_trial(local, template_trial), study_id % len(self._storages))

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        storage, local = self._there(trial_id)
        storage.set_trial_param(local, param_name, param_value_internal, distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        storage, local = self._there(trial_id)
        return storage.set_trial_state_values(local, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        storage, local = self._there(trial_id)
        storage.set_trial_intermediate_value(local, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        storage, local = self._there(trial_id)
        storage.set_trial_user_attr(local, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        storage, local = self._there(trial_id)
        storage.set_trial_system_attr(local, key, value)


def shown_storage(urls: Sequence[str]) -> BaseStorage:
    """What the dashboard shows: the storage itself where there is one."""
    backends = [open_storage(url, reading=True).backend for url in urls]
    return backends[0] if len(backends) == 1 else SeveralStorages(backends)


def main(host: str, port: int) -> None:
    from optuna_dashboard import run_server

    run_server(shown_storage(json.loads(os.environ[VARIABLE])), host, port)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
