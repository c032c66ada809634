"""``pyemu audio``: judge and draw what was played.

numpy and matplotlib are imported by the commands, not with the command line.
"""

from pathlib import Path

import click

from emu.cli.audio_list import list_devices
from emu.cli.reporting import debug_option, reporting
from emu.terminal.progress import Progress

__all__ = ["audio_group"]

_CHECK_EPILOG = """\b
Examples:
  pyemu audio check out.wav tone.wav
      Is out.wav what was played? If not: which frames are missing, repeated, reordered or altered.
  pyemu audio check out.wav
      Frequency, level and THD+N of a test tone; clicks, skips and dropouts.
  pyemu audio check out.wav --tone 997 --max-drift 10 --max-thd-n -90 --log out.jsonl
      The same; the exit status says whether the tone is within these limits and no period was early.

\b
Exit status:
  0  bit-exact; without ORIGINAL: no defect, and within the limits
  1  otherwise
  2  wrong usage, or a file that cannot be read
"""

_PLOT_EPILOG = """\b
Examples:
  pyemu audio plot out.wav -o out.png
      One picture for a bug report.
  pyemu boot --audio wav:out.wav,log=out.jsonl --exec "aplay /root/tone.wav"
  pyemu audio plot out.wav -o out.png --log out.jsonl
      Also shows when each period was completed, against when it was due.
"""

_GROUP_EPILOG = """\b
Examples:
  pyemu audio check out.wav tone.wav
      Is out.wav what was played, bit for bit?
  pyemu audio plot out.wav -o out.png
      What does it look like?
  pyemu audio list
      Which devices are there for pyemu boot --audio host:NAME?
"""


@click.group("audio", epilog=_GROUP_EPILOG)
def audio_group() -> None:
    """Sound: what was played, measured and drawn."""


audio_group.add_command(list_devices)


@audio_group.command(epilog=_CHECK_EPILOG, short_help="Is a WAV file what was played? Frequency, THD+N, defects.")
@click.argument("recording", type=click.Path(path_type=Path))
@click.argument("original", required=False, type=click.Path(path_type=Path))
@click.option("--log", type=click.Path(path_type=Path), metavar="FILE", help="The log of periods: were they on time?")
@click.option("--tone", type=click.FloatRange(0, min_open=True), metavar="HZ",
              help="The tone's nominal frequency; the drift from it is shown.")  # fmt: skip
@click.option("--max-drift", type=click.FloatRange(0), metavar="PPM", help="How far the tone may be off; needs --tone.")
@click.option("--max-thd-n", type=float, metavar="DB", help="The most distortion and noise of a tone, like -90.")
@debug_option
def check(
    *,
    recording: Path,
    original: Path | None,
    log: Path | None,
    tone: float | None,
    max_drift: float | None,
    max_thd_n: float | None,
    debug: bool,
) -> int:
    """Check the WAV file RECORDING, by itself or against the sound that was played, ORIGINAL.

    Silence before and after the sound is ignored.
    """
    if max_drift is not None and tone is None:
        raise click.UsageError("--max-drift needs --tone")
    if original is not None and (tone is not None or max_thd_n is not None):
        raise click.UsageError("a RECORDING with an ORIGINAL must equal it; leave out --tone and --max-thd-n")
    with reporting(debug):
        from emu import analysis  # noqa: PLC0415

        sound = analysis.read_wav(recording)
        periods = analysis.describe_periods(analysis.read_log(log)) if log is not None else []
        faults = []
        if original is not None:
            comparison = analysis.compare(sound, analysis.read_wav(original))
            click.echo(comparison)
            if not comparison.exact:
                faults.append("it is not bit-exact")
        if original is None or faults:  # an exact copy needs no measuring: whatever it contains was played
            with Progress(f"measuring {recording}") as progress:
                report = analysis.analyse(sound, tone, progress)
            click.echo(report)
            if original is None:
                faults += report.faults(max_drift=max_drift, max_thd_n=max_thd_n)
        if log is not None and not periods:
            faults.append(f"{log} has no periods")
        for each in periods:
            click.echo(each)
            if each.early:
                faults.append(f"periods of {each.direction} {each.stream} were early")
        click.echo(f"not fine: {'; '.join(faults)}" if faults else "fine")
    return 1 if faults else 0


@audio_group.command(epilog=_PLOT_EPILOG, short_help="Draw a WAV file: waveform, spectrogram, defects, periods.")
@click.argument("recording", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE.png",
              help="The picture; .svg and .pdf can be drawn, too.")  # fmt: skip
@click.option(
    "--log", type=click.Path(path_type=Path), metavar="FILE", help="Draw the timing of these periods as well."
)
@debug_option
def plot(*, recording: Path, output: Path, log: Path | None, debug: bool) -> None:
    """Draw the WAV file RECORDING: waveform, spectrogram, and its first defect close up.

    Needs matplotlib: pip install 'pyemu-riscv[plot]'
    """
    with reporting(debug):
        from emu import analysis  # noqa: PLC0415
        from emu.analysis import picture  # noqa: PLC0415

        picture.check_installed()
        periods = analysis.read_log(log) if log is not None else []
        with Progress(f"measuring {recording}") as progress:
            report = analysis.analyse(analysis.read_wav(recording), progress=progress)
        picture.plot(report, output, periods)
