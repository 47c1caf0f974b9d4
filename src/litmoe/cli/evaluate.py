"""``litmoe evaluate``: a checkpoint in, its figures on a text or on tasks out."""

from collections.abc import Sequence

from litmoe.cli.command import Command
from litmoe.cli.console import Console
from litmoe.config import EvaluateConfig
from litmoe.config.load import parse
from litmoe.errors import ConfigError


def evaluate_command(args: Sequence[str], console: Console) -> None:
    """Measure a trained model on a whole text, or on tasks of lm-eval."""
    config = parse(EvaluateConfig, args)
    if config.tasks:
        _on_tasks(config, console)
        return
    if config.num_fewshot is not None or config.limit is not None:
        raise ConfigError("--num-fewshot and --limit have no effect without --tasks")
    from litmoe.inference.evaluate import evaluate, table

    console.say(table(evaluate(config, say=console.say)))


def _on_tasks(config: EvaluateConfig, console: Console) -> None:
    if config.data is not None:
        raise ConfigError("--data has no effect with --tasks: a task brings its own text")
    from litmoe.inference.loading import find_checkpoint
    from litmoe.interop.lm_eval import evaluate_tasks

    evaluate_tasks(
        find_checkpoint(config.checkpoint, console.say),
        config.tasks,
        num_fewshot=config.num_fewshot,
        limit=config.limit,
        batch_size=config.batch_size,
        accelerator=config.accelerator,
        json_file=config.json,
        say=console.say,
    )


EVALUATE = Command(
    evaluate_command,
    (EvaluateConfig,),
    "[--data PATH | --tasks NAME ...] [options]",
    result_is_printed=True,
)
