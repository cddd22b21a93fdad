"""The command `uce gene-embeddings`."""

import argparse

from uce.cli.parsers import Commands, add_command, add_computing, add_source


def add_commands(commands: Commands) -> None:
    """Add the command of this room to the parser."""
    parser = add_command(
        commands,
        "gene-embeddings",
        "write the gene vectors of a species, alone and in the context of cells",
        example="gene-embeddings pbmc.h5ad --species human --group-by cell_type -o genes.h5ad",
    )
    parser.add_argument("cells", nargs="?", help="cells that `uce embed` reads; without them: no vectors in context")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.h5ad", help="result: an AnnData file of genes")
    add_source(parser, several_species=False)
    parser.add_argument("--group-by", metavar="COLUMN", help="obs column: also average within each of its labels")
    parser.add_argument("--where", metavar="COLUMN=VALUE", help="average only the cells with this label")
    add_computing(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an output that is there")
    parser.add_argument("--quiet", action="store_true", help="no progress and no notes")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from uce.errors import UsageError
    from uce.files import atomic_path, check_writable, refuse_overwrite

    if not args.output.endswith(".h5ad"):
        msg = f"--output {args.output}: an AnnData file is written; use a name that ends in .h5ad."
        raise UsageError(msg)
    path = refuse_overwrite(args.output, overwrite=args.overwrite)
    check_writable(path.parent)
    from uce.gene_embedding import gene_embeddings
    from uce.outputs import output_path

    if args.cells:
        output_path(args.cells, path, "h5ad", inplace=False)  # refuses an output that is the input
    genes = gene_embeddings(
        args.species,
        cells=args.cells,
        model=args.model,
        group_by=args.group_by,
        where=args.where,
        gene_column=args.gene_column,
        layer=args.layer,
        use_raw=args.use_raw,
        genome=args.genome,
        counts_policy=args.counts_policy,
        min_coverage=args.min_coverage,
        seed=args.seed,
        batch_size=args.batch_size,
        precision=args.precision,
        device=args.device,
        quiet=args.quiet,
    )
    with atomic_path(path) as temporary:
        genes.write_h5ad(temporary)
    print(path)
    return 0
