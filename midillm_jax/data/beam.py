"""Blocks of a build made by Apache Beam: on this machine, or on Dataflow, Flink or Spark.

The pipeline is the local one's two halves with a shuffle between: each part of the listing is read from beginning to
end by one worker, its blocks are prepared by all. What a block is, and its file, are the same as without Beam.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from midillm_jax.data.blocks import Block, BlockJob, blocks_of
from midillm_jax.data.sources import Listing
from midillm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class _Blocks:
    listing: Listing
    staging: str

    def __call__(self, part: int) -> Iterator[Block]:
        # A block that is there already needs no worker.
        return (block for block in blocks_of(self.listing, part, self.staging) if block.records is not None)


def make_blocks(listing: Listing, job: BlockJob, runner: str, options: Sequence[str]) -> None:
    """Runs the pipeline and returns when every block's file is there.

    Args:
        listing: what is read; its parts are spread over the workers, so its locations must be theirs too.
        job: prepares a block; its staging folder must be one that all workers and this machine reach.
        runner: a runner's name as Beam knows it, ``DirectRunner`` for this machine.
        options: Beam's own, each ``name=value`` or ``name``.

    Raises:
        UserError: Beam does not know the runner or an option is malformed.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    flags = [f"--{option.removeprefix('--')}" for option in options]
    try:
        pipeline = beam.Pipeline(runner=runner, options=PipelineOptions(flags))
    except (ValueError, ImportError, AttributeError) as error:
        raise UserError(
            f"--runner {runner}: Apache Beam cannot set it up with these --beam-options ({error}); give DirectRunner, "
            "DataflowRunner, FlinkRunner or SparkRunner with what its documentation asks for"
        ) from error
    with pipeline:
        _ = (
            pipeline
            | "parts" >> beam.Create(list(range(len(listing.parts))))
            | "read" >> beam.FlatMap(_Blocks(listing, job.staging))
            | "spread" >> beam.Reshuffle()
            | "prepare" >> beam.Map(job)
        )
