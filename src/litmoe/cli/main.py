"""The doors: a command's words in, one function call, an exit code out.

``litmoe train ...`` and ``python run_train.py ...`` are the same. What a person did wrong is printed in one line,
without a traceback, with exit code 2.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from litmoe.cli.exchange import export_command, import_command, wandb_dataset_command
from litmoe.config import EvaluateConfig, GenerateConfig, PrepareConfig, as_plain
from litmoe.config.files import file_options, load_train_config, parse
from litmoe.diagnostics.verify_resume import verify_resume_command
from litmoe.errors import LitMoEError, RunInterrupted
from litmoe.version import __version__

Command = Callable[[Sequence[str], str], None]


def train_command(words: Sequence[str], program: str) -> None:
    """Train a model, or continue a run."""
    files = file_options(program)
    files.add_argument("--print-config", "--print_config", action="store_true")
    known, rest = files.parse_known_args(list(words))
    config = load_train_config(
        known.config,
        preset=known.preset,
        model_config=known.model_config,
        overrides=rest,
        program=program,
        about=_ABOUT_TRAINING,
    )
    if known.print_config:
        import yaml

        print(yaml.safe_dump(as_plain(config), sort_keys=False), end="")
        return
    from litmoe.training.loop import train

    train(config, say=lambda line: print(line, flush=True))


def prepare_command(words: Sequence[str], program: str) -> None:
    """Make text shards, tokenizer and token stores from a source of text."""
    config = parse(PrepareConfig, words, {}, program)
    from litmoe.data.prepare import prepare
    from litmoe.wandb.datasets import check_upload, upload_dataset, upload_wanted

    upload = upload_wanted(config.log_to_wandb)
    artifact = config.wandb_artifact or f"dataset-{config.data_dir.resolve().name}"
    if config.wandb_artifact and not upload:
        raise LitMoEError("--wandb_artifact has no effect without --log-to-wandb")
    if upload:
        check_upload(artifact)
    prepare(config, print)
    if upload:
        upload_dataset(config.data_dir, config.tokenizer_dir, artifact)


def generate_command(words: Sequence[str], program: str) -> None:
    """Write text with a trained model."""
    config = parse(GenerateConfig, words, {}, program)
    from litmoe.inference.generate import generate

    generate(
        config,
        write=lambda text: print(text, end="", flush=True),
        say=lambda line: print(line, file=sys.stderr),
    )


def evaluate_command(words: Sequence[str], program: str) -> None:
    """Measure a trained model on a whole validation text."""
    config = parse(EvaluateConfig, words, {}, program)
    if config.tasks:
        from litmoe.inference.loading import find_checkpoint
        from litmoe.interop.lm_eval import evaluate_tasks

        if config.data is not None:
            raise LitMoEError("--data has no effect with --tasks: a task brings its own text")
        evaluate_tasks(
            find_checkpoint(config.checkpoint, print),
            config.tasks,
            num_fewshot=config.num_fewshot,
            limit=config.limit,
            batch_size=config.batch_size,
            accelerator=config.accelerator,
            json_file=config.json,
        )
        return
    if config.num_fewshot is not None or config.limit is not None:
        raise LitMoEError("--num_fewshot and --limit have no effect without --tasks")
    from litmoe.inference.evaluate import evaluate

    evaluate(config)


def bench_command(words: Sequence[str], program: str) -> None:
    """Measure training and generation on this machine, as a table to paste."""
    from litmoe.diagnostics.bench import bench_command

    bench_command(words, program)


def plan_command(words: Sequence[str], program: str) -> None:
    """Say what a run will need in memory, disk and time, and what makes it fit."""
    from litmoe.cli.plan import plan_command

    plan_command(words, program)


COMMANDS: dict[str, Command] = {
    "prepare": prepare_command,
    "plan": plan_command,
    "train": train_command,
    "generate": generate_command,
    "evaluate": evaluate_command,
    "export": export_command,
    "import": import_command,
    "wandb-dataset": wandb_dataset_command,
    "verify-resume": verify_resume_command,
    "bench": bench_command,
}


def run(command: Command, words: Sequence[str], program: str) -> int:
    """Run one command; returns its exit code.

    0: done. 2: a mistake, explained in one line. 130, 143: ended by Ctrl-C or SIGTERM, with the state saved.
    """
    try:
        command(words, program)
    except RunInterrupted as ended:
        print(f"{program}: {ended}", file=sys.stderr)
        return ended.exit_code
    except LitMoEError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except argparse.ArgumentError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        sys.stderr.close()
        return 0
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """The console script ``litmoe``."""
    words = list(sys.argv[1:] if words is None else words)
    if words and words[0] in COMMANDS:
        return run(COMMANDS[words[0]], words[1:], f"litmoe {words[0]}")
    if words == ["--version"]:
        print(__version__)
        return 0
    width = max(map(len, COMMANDS))
    listing = "\n".join(
        f"  {name:<{width}}  {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()
    )
    usage = (
        f"usage: litmoe COMMAND [options]\n\n{listing}\n\n`litmoe COMMAND --help` lists a command's options."
    )
    if not words or words[0] in ("-h", "--help"):
        print(usage)
        return 0
    from litmoe.messages import nearest

    print(f"litmoe: there is no command {words[0]!r}{nearest(words[0], COMMANDS)}", file=sys.stderr)
    return 2


_ABOUT_TRAINING = """\
Train a Mixture-of-Experts language model, or continue a run.

  --preset NAME        a configuration that comes with litmoe, such as tiny
  --config FILE        a training YAML (LitGPT's names); without it and --preset: train_config.yaml
  --model-config FILE  a model YAML (the fields of litgpt.Config)
  --print-config       print the configuration that results, and stop
  --data-dir DIR       both data paths: DIR/train and DIR/val
  --progress           show a progress bar

Later ones override earlier ones: preset, config, model-config, options. An option that begins with --train. may
stand without that, and with dashes for underscores: --max-tokens is --train.max_tokens.
"""


if __name__ == "__main__":
    sys.exit(main())
