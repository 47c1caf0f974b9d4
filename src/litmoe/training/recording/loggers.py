"""The logger of choice, which gets every row besides ``metrics.csv``."""

import os
from importlib.util import find_spec

from lightning.fabric.loggers.logger import Logger

from litmoe.config import TrainConfig, as_plain
from litmoe.errors import LitMoEError, MissingExtraError
from litmoe.messages import Say, one_line, silent
from litmoe.wandb.run import WandbLogger


def check_logger(config: TrainConfig) -> None:
    """Refuse a logger that cannot start, before any work.

    Raises:
        MissingExtraError: its package is not installed; names the extra.
    """
    name = config.logger_name
    packages = {"wandb": ("wandb",), "mlflow": ("mlflow",), "tensorboard": ("tensorboard", "tensorboardX")}
    if name != "csv" and not any(find_spec(package) for package in packages[name]):
        raise MissingExtraError(
            f"logger_name {name} needs a package that is not installed: "
            f'pip install "litmoe[{name}]" (in a checkout: uv sync --extra {name})'
        )


def make_logger(config: TrainConfig, name: str, resume: bool, say: Say = silent) -> Logger | None:
    """Start the logger; None for ``csv``. TensorBoard and MLflow are Lightning's, as LitGPT chooses them.

    Args:
        config: the run's.
        name: of the run in the logger.
        resume: whether the run continues an earlier one.
        say: told what W&B has of it already.

    Raises:
        LitMoEError: it refuses to start: a folder that cannot be written, a server that does not answer.
    """
    if config.logger_name == "csv":
        return None
    check_logger(config)
    from litgpt.utils import choose_logger

    log_args = {key: value for key, value in as_plain(config.log).items() if value is not None}
    place = {}
    if config.logger_name == "mlflow" and "MLFLOW_TRACKING_URI" not in os.environ:
        # MLflow 3 refuses the folder that Lightning would choose: it wants a database.
        place["tracking_uri"] = f"sqlite:///{(config.out_dir / 'mlflow.db').resolve().as_posix()}"
    try:
        if config.logger_name == "wandb":
            logger: Logger = WandbLogger(config, resume, say)
        else:
            logger = choose_logger(
                config.logger_name, config.out_dir, name=name, resume=resume, log_args=log_args, **place
            )
        _ = logger.experiment  # opens its files or its connection, which Lightning puts off to the first row
        logger.log_hyperparams(as_plain(config))
    except LitMoEError:
        raise
    except Exception as error:  # loggers, and what they stand on, raise anything
        reason = one_line(error)[:300] or type(error).__name__
        raise LitMoEError(
            f"logger_name {config.logger_name}: it does not start: {reason}; repair it, or use --logger-name csv"
        ) from error
    return logger
