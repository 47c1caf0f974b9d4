"""Settings of the jobs around training: what ``prepare``, ``generate`` and ``evaluate`` do."""

from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Literal

from litmoe.config.describe import FORMERLY
from litmoe.config.values import File, Folder, Name, PathOrName


@dataclass
class PrepareConfig:
    """Make text shards, a tokenizer and token stores from a source of text."""

    source: list[PathOrName] = field(default_factory=list)
    """``sample``, ``tinystories``, or files and folders. ``sample``: built-in stories; ``tinystories``: from the
    Hugging Face hub; files of .txt, .jsonl, .json or .parquet. Empty: the text already in the data folder, else
    ``sample``."""
    data_dir: Folder = Path("data/custom_text")
    """Where ``train/`` and ``val/`` go, with text and token store."""
    tokenizer: PathOrName | None = None
    """``train``, ``gpt2``, a hub id, or a folder. ``train``: byte-level BPE on the corpus. Null: the one already
    in ``tokenizer_dir``; else ``train`` for the sample and ``gpt2`` for other text."""
    vocab_size: int = 4096
    """Size of a trained vocabulary, the end-of-text token included."""
    tokenizer_dir: Folder = Path("data/tokenizer")
    """The tokenizer's folder."""
    val_fraction: float = 0.05
    """Share of the documents to validate on, where the source has no split of its own."""
    max_documents: int | list[int | None] | None = None
    """Read at most this many documents in total; or so many of each ``source``, a number for each (null: all)."""
    document_boundaries: Literal["auto", "file", "blank-line"] = field(
        default="auto", metadata={FORMERLY: "split"}
    )
    """Where documents end in .txt files. ``auto``: at ``<|endoftext|>`` where present, else with the file;
    ``file``: with the file; ``blank-line``: at blank lines."""
    text_field: str = "text"
    """Field that holds the text, in .jsonl, .json and .parquet."""
    seed: int = 0
    """Seed of the built-in sample corpus."""
    log_to_wandb: bool = False
    """Upload the result to Weights & Biases, as ``WANDB_LOG_DATASET=1`` does."""
    wandb_artifact: Name | None = None
    """The Artifact's name; null: ``dataset-`` and the data folder's name."""
    force: bool = False
    """Replace text and tokenizer made with other settings."""
    progress: bool = True
    """Show a progress bar. Only where stderr is a terminal."""
    split: InitVar[str | None] = None
    """The former name of ``document_boundaries``."""

    def __post_init__(self, split: str | None) -> None:
        if split is not None:
            self.document_boundaries = split  # type: ignore[assignment]  # checked where documents are read


@dataclass
class GenerateConfig:
    """Write text with a trained model."""

    checkpoint: Folder | None = None
    """A checkpoint folder; null: the newest valid one below ``checkpoints``."""
    prompt: str = ""
    """The beginning of the text; empty starts a new document."""
    prompts: list[str] = field(default_factory=list)
    """Several prompts instead of ``prompt``; their texts are written at once."""
    prompt_file: File | None = None
    """A text file that holds the prompt, instead of ``prompt``; its last line break is left out."""
    allow_special: bool = False
    """Read special tokens in prompts, such as ``<|endoftext|>``, as such; else they are plain text, as in
    training."""
    stop: list[str] = field(default_factory=list)
    """End a text before the first of these strings."""
    max_new_tokens: int = 256
    """Longest text, in tokens."""
    temperature: float = 0.8
    """Sampling temperature; 0 takes the likeliest token every time."""
    top_k: int | None = 50
    """Choose among the k likeliest tokens; null: all."""
    top_p: float = 1.0
    """Choose among the likeliest tokens of this probability together."""
    num_samples: int = 1
    """Texts per prompt, written at once."""
    seed: int = 0
    """The same seed gives the same text."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Which kind of device."""


@dataclass
class EvaluateConfig:
    """Measure a trained model on a whole text, or on tasks of lm-eval."""

    checkpoint: Folder | None = None
    """A checkpoint folder; null: the newest valid one below ``checkpoints``."""
    data: File | Folder | None = None
    """A prepared data folder, a folder of text, or a file of text; null: the validation text of the run."""
    text_field: str = "text"
    """Field of .jsonl, .json and .parquet that holds the text."""
    document_boundaries: Literal["auto", "file", "blank-line"] = "auto"
    """Where documents end in .txt files, as for ``prepare``."""
    max_seq_length: int | None = None
    """Tokens per window; null: as in training."""
    batch_size: int = 8
    """Windows at once."""
    tasks: list[PathOrName] = field(default_factory=list)
    """Tasks of lm-eval instead of a text; needs the extra ``eval``."""
    num_fewshot: int | None = None
    """Examples before each question of a task; null: the task's own number."""
    limit: int | None = None
    """Questions per task; null: all."""
    json: File | None = None
    """Also write the figures to this file."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Which kind of device."""
    progress: bool = True
    """Show a progress bar. Only where stderr is a terminal."""
