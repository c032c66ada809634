"""Many machines: one test for each of any number of cases, spread by an engine of the user's, or over this computer.

    from emu.fleet import sweep

    def plays(machine, rate):
        status, output = machine.console.run(f"speaker-test -r {rate} -l 1 -t sine")
        assert status == 0, output

    if __name__ == "__main__":
        for outcome in sweep(plays, ({"rate": rate} for rate in (8000, 44100, 48000))):
            print(outcome.case, outcome.error or "passed")

There is no scheduler here: which worker gets which case is the executor's business. Dask's is
``client.get_executor(pure=False)``, loky's ``loky.get_reusable_executor()``. Ray has none, but this is one:

    class Rays(concurrent.futures.Executor):
        call = staticmethod(ray.remote(lambda run, arguments: run(*arguments)).remote)

        def submit(self, run, *arguments):
            return self.call(run, arguments).future()

    target    the test: a function that other processes can find
    job       what a sweep's machines have in common, as it is sent to whoever runs them
    files     the files among that, wherever its workers are
    bench     where a test meets its machine
    child     the process around the bench, which may crash
    keeper    whoever keeps children, and ends those that hang
    outcome   what came of a case
    flights   the cases on their way to an executor, and the outcomes back
    sweep     all of that together
    cluster   Dask as that executor
    cases     the cases as people write them
    results   the file of outcomes, in which a sweep can go on
    junit     what is in there, for CI systems
    page      and for people
"""

from emu.fleet.outcome import Failure, Outcome
from emu.fleet.sweep import sweep
from emu.fleet.target import Target

__all__ = ["Failure", "Outcome", "Target", "sweep"]
