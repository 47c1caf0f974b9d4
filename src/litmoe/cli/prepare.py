"""``litmoe prepare``: text in, tokenizer and token stores out."""

from collections.abc import Sequence

from litmoe.cli.command import Command
from litmoe.cli.console import Console
from litmoe.config import PrepareConfig
from litmoe.config.load import parse
from litmoe.errors import ConfigError


def prepare_command(args: Sequence[str], console: Console) -> None:
    """Make text shards, a tokenizer and token stores from a source of text."""
    config = parse(PrepareConfig, args)
    from litmoe.data.prepare import prepare
    from litmoe.wandb.datasets import check_upload, upload_dataset, upload_wanted

    upload = upload_wanted(config.log_to_wandb)
    artifact = config.wandb_artifact or f"dataset-{config.data_dir.resolve().name}"
    if config.wandb_artifact and not upload:
        raise ConfigError("--wandb-artifact has no effect without --log-to-wandb")
    if upload:
        check_upload(artifact)
    prepare(config, say=console.say)
    if upload:
        upload_dataset(config.data_dir, config.tokenizer_dir, artifact, say=console.say)


PREPARE = Command(prepare_command, (PrepareConfig,), "[--source PATH|NAME ...] [options]")
