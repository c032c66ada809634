"""One PCM stream: the state machine of virtio 1.3 section 5.14.6.6.1.

What a stream is between PREPARE and RELEASE is in prepared.py.
"""

from collections.abc import Callable
from enum import Enum
from typing import Any, TypedDict

from devices.state import check
from devices.virtio.queue import Chain
from devices.virtio.sound import wire
from devices.virtio.sound.prepared import ParamsState, Prepared, PreparedState, StreamParams, Surroundings
from devices.virtio.sound.steps import Steps

__all__ = ["State", "Stream", "StreamState"]


class State(Enum):
    """How far the driver has got with a stream: the last command that the stream accepted."""

    NEW = "new"
    SET = "parameters set"
    PREPARED = "prepared"
    RUNNING = "running"
    STOPPED = "stopped"
    RELEASED = "released"


# Which command is legal when, and where it leads. RELEASE of a stream that holds nothing is not in the specification,
# but Linux does it when it opens a stream whose last use failed; it is accepted, and changes nothing.
_TRANSITIONS = {
    (State.NEW, wire.R_PCM_SET_PARAMS): State.SET,
    (State.NEW, wire.R_PCM_RELEASE): State.NEW,
    (State.SET, wire.R_PCM_SET_PARAMS): State.SET,
    (State.SET, wire.R_PCM_PREPARE): State.PREPARED,
    (State.SET, wire.R_PCM_RELEASE): State.SET,
    (State.PREPARED, wire.R_PCM_SET_PARAMS): State.SET,
    (State.PREPARED, wire.R_PCM_PREPARE): State.PREPARED,
    (State.PREPARED, wire.R_PCM_START): State.RUNNING,
    (State.PREPARED, wire.R_PCM_RELEASE): State.RELEASED,
    (State.RUNNING, wire.R_PCM_STOP): State.STOPPED,
    (State.STOPPED, wire.R_PCM_START): State.RUNNING,
    (State.STOPPED, wire.R_PCM_RELEASE): State.RELEASED,
    (State.RELEASED, wire.R_PCM_SET_PARAMS): State.SET,
    (State.RELEASED, wire.R_PCM_PREPARE): State.PREPARED,
    (State.RELEASED, wire.R_PCM_RELEASE): State.RELEASED,
}


# In which of them a stream is prepared.
_PREPARED = {State.PREPARED, State.RUNNING, State.STOPPED}


class StreamState(TypedDict):
    """A stream: how far the driver has got (a State's value), and what it has prepared."""

    state: str
    params: ParamsState | None
    prepared: PreparedState | None
    leaving: PreparedState | None


class Stream:
    """A stream of one ``direction`` (D_OUTPUT, D_INPUT), from one reset to the next; ``make`` prepares it.

    The commands return the status to reply with, after ``finish``; one that is illegal now (S_BAD_MSG) changes nothing.
    """

    def __init__(
        self, direction: int, make: Callable[[Surroundings, StreamParams], Prepared[Any]], around: Surroundings
    ) -> None:
        self.direction = direction
        self.number = around.number
        self._state = State.NEW
        self._make = make
        self._around = around
        self._params: StreamParams | None = None  # from the first SET_PARAMS on
        self._prepared: Prepared[Any] | None = None  # from PREPARE to RELEASE
        self._leaving: Prepared[Any] | None = None  # what was released, until its messages are returned

    def set_params(self, params: StreamParams) -> int:
        """SET_PARAMS: messages queued under the old parameters are returned."""
        if not self._enter(wire.R_PCM_SET_PARAMS):
            return wire.S_BAD_MSG
        self._params = params
        self._leave()
        return wire.S_OK

    def prepare(self) -> int:
        """PREPARE: messages may be queued from now on, and wait."""
        if self._params is None or not self._enter(wire.R_PCM_PREPARE):
            return wire.S_BAD_MSG
        if self._prepared is None:
            self._prepared = self._make(self._around, self._params)
        return wire.S_OK

    def start(self) -> int:
        """START: the first sample, or the next one after STOP, is now."""
        if self._prepared is None or not self._enter(wire.R_PCM_START):
            return wire.S_BAD_MSG
        self._prepared.start()
        return wire.S_OK

    def stop(self) -> int:
        """STOP: nothing is heard or recorded from now on."""
        if self._prepared is None or not self._enter(wire.R_PCM_STOP):
            return wire.S_BAD_MSG
        self._prepared.stop()
        return wire.S_OK

    def release(self) -> int:
        """RELEASE: every message is returned, and the driver told, before the command is answered (5.14.6.6.5)."""
        if not self._enter(wire.R_PCM_RELEASE):
            return wire.S_BAD_MSG
        self._leave()
        return wire.S_OK

    def finish(self) -> Steps:
        """Do the rest of the last command, if it has left any, from wherever that has got to."""
        if self._prepared is not None:
            yield from self._prepared.finish_stop()
        if self._leaving is not None:
            yield from self._leaving.finish_release()
            self._leaving = None

    def close(self) -> None:
        """Stop and forget everything: the device is reset."""
        for prepared in (self._prepared, self._leaving):
            if prepared is not None:
                prepared.close()
        self._prepared = self._leaving = None

    @property
    def is_busy(self) -> bool:
        """Whether the last command has a rest, for ``finish``."""
        return self._leaving is not None or (self._prepared is not None and self._prepared.is_stopping)

    def state(self) -> StreamState:
        """Return what ``restore`` makes the same stream from."""
        return {
            "state": self._state.value,
            "params": None if self._params is None else self._params.state(),
            "prepared": None if self._prepared is None else self._prepared.state(),
            "leaving": None if self._leaving is None else self._leaving.state(),
        }

    def restore(self, state: StreamState) -> None:
        """Go on as another stream of the same kind; this one must be new."""
        check(any(state["state"] == one.value for one in State), "a stream")
        self._state = State(state["state"])
        prepared, leaving = state["prepared"], state["leaving"]
        check(
            (prepared is not None) == (self._state in _PREPARED)
            and (prepared is None or prepared["running"] == (self._state is State.RUNNING))
            and (prepared is None or not prepared["stopping"] or self._state is State.STOPPED)
            and (leaving is None or not (leaving["running"] or leaving["stopping"])),
            "a stream",
        )
        self._params = None if state["params"] is None else StreamParams.restored(state["params"])
        if prepared is not None:
            self._prepared = self._make(self._around, StreamParams.restored(prepared["params"]))
            self._prepared.restore(prepared)
        if leaving is not None:
            self._leaving = self._make(self._around, StreamParams.restored(leaving["params"]))
            self._leaving.restore(leaving)

    def submit(self, chain: Chain) -> bool:
        """Queue a message that has a header and room for a status; False if it cannot be played or recorded."""
        return self._prepared is not None and self._prepared.submit(chain)

    def _enter(self, command: int) -> bool:
        state = _TRANSITIONS.get((self._state, command))
        if state is None:
            return False
        self._state = state
        return True

    def _leave(self) -> None:
        self._leaving, self._prepared = self._prepared, None  # from here on it takes no messages
        if self._leaving is not None:
            self._leaving.release()
