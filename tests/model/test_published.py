"""The published files become a model folder and gene tables: every number in its place, and no code run."""

import csv
import gzip
import itertools
import json
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

import uce
from uce.errors import ModelError, OutputExistsError, UsageError
from uce.genes.adding import add_species
from uce.genes.collection import load_gene_table
from uce.genes.requests import Sources
from uce.genes.sources import Lookup, Places, read_offsets, read_places, read_vectors
from uce.genes.tables import GeneTable, read_table
from uce.genes.vocabulary import build_vocabulary
from uce.model.checkpoint import load_model
from uce.model.published import CHROMOSOME_ROWS, GENE_ROWS, import_published
from uce.model.weights import published_encoder

WIDTH = 8
OFFSETS = {
    "frog": 4,
    "human": 13466,
    "macaca_fascicularis": 33256,
    "macaca_mulatta": 48431,
    "mouse": 65206,
    "mouse_lemur": 87530,
    "pig": 102072,
    "zebrafish": 117844,
}
FILES = {
    "frog": ("xenopus_tropicalis", "Xenopus_tropicalis.Xenopus_tropicalis_v9.1"),
    "human": ("homo_sapiens", "Homo_sapiens.GRCh38"),
    "macaca_fascicularis": ("macaca_fascicularis", "Macaca_fascicularis.Macaca_fascicularis_6.0"),
    "macaca_mulatta": ("macaca_mulatta", "Macaca_mulatta.Mmul_10"),
    "mouse": ("mus_musculus", "Mus_musculus.GRCm39"),
    "mouse_lemur": ("microcebus_murinus", "Microcebus_murinus.Mmur_3.0"),
    "pig": ("sus_scrofa", "Sus_scrofa.Sscrofa11.1"),
    "zebrafish": ("danio_rerio", "Danio_rerio.GRCz11"),
}
SUFFIX = ".gene_symbol_to_embedding_ESM2.pt"


@dataclass
class Published:
    """Files of exactly the published form, narrow; in the made-up ones each species has few genes."""

    folder: Path
    chromosomes: Path
    offsets: dict[str, int]
    gene_rows: int
    chromosome_rows: int
    state: dict[str, Tensor]
    keys: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        generator = np.random.default_rng(1)
        rows = generator.standard_normal((self.gene_rows + self.chromosome_rows, WIDTH)).astype(np.float32)
        rows[0] = 0
        self.table = torch.from_numpy(rows)
        self.state["pe_embedding.weight"] = self.table
        torch.save(self.state, self.folder / "weights.torch")
        self.places = places = read_places(self.chromosomes)
        for species in self.offsets:
            vectors = self.table[self.block(species)]
            symbols = np.unique(places.symbols[places.species == species])
            chosen = generator.permutation(symbols)[: len(vectors)].tolist()
            content = {symbol if i % 3 else symbol.lower(): vectors[i] for i, symbol in enumerate(chosen)}
            # One symbol once more in other letters: the first one's place and the last one's vector are to be taken.
            twin = next(symbol for symbol in chosen[1:] if symbol in content and symbol.lower() != symbol)
            content |= {twin.lower(): content[twin], twin: vectors[0] + 1}
            torch.save(content, self.file(species))
            self.keys[species] = chosen

    def block(self, species: str) -> slice:
        ends = [*list(self.offsets.values())[1:], self.gene_rows]
        return slice(self.offsets[species], ends[list(self.offsets).index(species)])

    def file(self, species: str) -> Path:
        return self.folder / (FILES[species][1] + SUFFIX)

    def run(self, home: Path, **changes: Any) -> Path:
        given: dict[str, Any] = {
            "chromosomes": self.chromosomes,
            "offsets": self.folder / "offsets.json",
            "proteins": self.folder,
            "name": "old",
            "models": home / "models",
            "genes": home / "genes",
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("uce.model.published.GENE_ROWS", self.gene_rows)
            patch.setattr("uce.model.published.CHROMOSOME_ROWS", self.chromosome_rows)
            return import_published(changes.pop("weights", self.folder / "weights.torch"), **{**given, **changes})


@pytest.fixture(scope="module")
def narrow_state(published_state: Callable[..., dict[str, Tensor]]) -> dict[str, Tensor]:
    return published_state(layers=2, dim=64, hidden=16, protein_dim=WIDTH, out_dim=12)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory, narrow_state: dict[str, Tensor]) -> Published:
    """Eight species of 40 to 47 genes on 2 to 9 chromosomes; every third zebrafish symbol is listed twice."""
    folder = tmp_path_factory.mktemp("made-up")
    sizes = {species: 40 + i for i, species in enumerate(OFFSETS)}
    with (folder / "species_chrom.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["gene_symbol", "chromosome", "start", "species"])
        for number, (species, size) in enumerate(sizes.items(), 2):
            for gene in range(size + 3):
                rows = [[f"{species}-{gene}".upper(), gene % number + 1, 1000 + 7 * gene, species]]
                if species == "zebrafish" and gene % 3 == 0:
                    rows.append([rows[0][0], 1, gene + 1, species])
                writer.writerows(rows)
    firsts = [4, *(4 + total for total in itertools.accumulate(sizes.values()))]
    offsets = dict(zip(sizes, firsts, strict=False))
    (folder / "offsets.json").write_text(json.dumps(offsets))
    return Published(folder, folder / "species_chrom.csv", offsets, firsts[-1], sum(range(2, 10)), dict(narrow_state))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, narrow_state: dict[str, Tensor], shared: Path) -> Published:
    """The real table of chromosomes and real offsets, with weights and vectors of exactly the published form."""
    folder, files = tmp_path_factory.mktemp("real"), shared / "data" / "uce_artifacts"
    offsets = read_offsets(files / "species_offsets.pkl")
    (folder / "offsets.json").write_text(json.dumps(offsets))
    return Published(folder, files / "species_chrom.csv.gz", offsets, GENE_ROWS, CHROMOSOME_ROWS, dict(narrow_state))


@pytest.fixture(scope="module", params=["made_up", "real"])
def published(request: pytest.FixtureRequest) -> Published:
    files: Published = request.getfixturevalue(request.param)
    return files


@pytest.fixture(scope="module")
def imported(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything imported once: the home with `models` and `genes`."""
    home = tmp_path_factory.mktemp("home")
    published.run(home)
    return home


def imported_table(home: Path, species: str, kind: str = "esm2_t48_15B_UR50D") -> GeneTable:
    return read_table(home / "genes" / kind / f"{FILES[species][0]}.h5ad")


@pytest.mark.parametrize("species", OFFSETS)
def test_every_gene_has_the_row_of_its_offset_and_position(published: Published, imported: Path, species: str) -> None:
    table = imported_table(imported, species)
    assert (table.species, table.encoder) == (FILES[species][0], "esm2_t48_15B_UR50D")
    assert table.ids.tolist() == sorted(published.keys[species])
    assert table.symbols.tolist() == table.ids.tolist()
    assert table.metadata["first_row"] == published.offsets[species]
    position = {symbol: i for i, symbol in enumerate(published.keys[species])}
    rows = published.offsets[species] + np.array([position[symbol] for symbol in table.ids.tolist()])
    np.testing.assert_array_equal(table.vectors, published.table[rows].numpy())


@pytest.mark.parametrize("species", OFFSETS)
def test_every_gene_stands_where_it_is_first_listed(published: Published, imported: Path, species: str) -> None:
    table = imported_table(imported, species)
    first: dict[str, tuple[str, int]] = {}
    opened = gzip.open if published.chromosomes.suffix == ".gz" else open
    with opened(published.chromosomes, "rt", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["species"] == species:
                first.setdefault(row["gene_symbol"], (row["chromosome"], int(row["start"])))
    expected = [first[symbol] for symbol in table.ids.tolist()]
    assert list(zip(table.chromosomes.tolist(), table.starts.tolist(), strict=True)) == expected


def test_symbols_of_the_chromosome_table_without_a_key_get_no_gene(published: Published, imported: Path) -> None:
    places = published.places
    listed = set(places.symbols[places.species == "human"].tolist())
    dropped = listed - set(imported_table(imported, "human").ids.tolist())
    assert len(dropped) == len(listed) - len(published.keys["human"]) >= 3


def test_the_folder_holds_the_weights_specials_and_named_chromosomes(published: Published, imported: Path) -> None:
    model = load_model(imported / "models" / "old")
    np.testing.assert_array_equal(model.specials, published.table[:4].numpy())
    assert len(model.chromosome_vectors) == published.chromosome_rows
    assert (model.gene_encoder, model.rule.draws, model.rule.max_tokens) == ("esm2_t48_15B_UR50D", 1024, 1536)
    assert [line["species"] for line in model.gene_tables] == [latin for latin, _ in FILES.values()]
    assert model.gene_tables[1]["sha256"] == imported_table(imported, "human").sha256
    assert (model.config.layers, model.config.heads, model.config.dim) == (2, 1, 64)
    vectors = published.table[torch.randint(4, published.gene_rows, (2, 40))]
    direct = published_encoder(published.state, path=Path("state"))
    assert torch.equal(model.encoder(vectors), direct(vectors))


def test_every_chromosome_has_the_row_of_its_rank_among_all_names(published: Published, imported: Path) -> None:
    codes = published.places.codes
    assert [f"{species}_{chromosome}" for species, chromosome in codes] == sorted(
        f"{species}_{chromosome}" for species, chromosome in codes
    )
    vectors = load_model(imported / "models" / "old").chromosome_vectors
    assert len(vectors) == len(codes) == published.chromosome_rows
    for (species, chromosome), code in codes.items():
        name = f"{FILES[species][0]}:{chromosome}"
        np.testing.assert_array_equal(vectors[name], published.table[published.gene_rows + code].numpy())


def test_the_real_blocks_and_codes_are_the_published_ones(shared: Path) -> None:
    folder = shared / "data" / "uce_artifacts"
    assert read_offsets(folder / "species_offsets.pkl") == read_offsets(folder / "species_offsets.json") == OFFSETS
    codes = read_places(folder / "species_chrom.csv.gz").codes
    with (folder / "chromosome_tokens.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["species"], row["chromosome"]): int(row["code"]) for row in rows} == codes
    assert {int(row["token"]) - int(row["code"]) for row in rows} == {GENE_ROWS}
    assert (len(codes), codes["human", "1"], GENE_ROWS + codes["human", "1"]) == (1_895, 564, 144_138)
    firsts = [min(code for (one, _), code in codes.items() if one == species) for species in OFFSETS]
    assert firsts == [0, 564, 614, 654, 692, 717, 760, 803]


def test_an_imported_model_and_table_make_a_vocabulary(published: Published, imported: Path) -> None:
    model, table = load_model(imported / "models" / "old"), imported_table(imported, "mouse")
    vocabulary = build_vocabulary(table, model.specials, chromosome_vectors=model.chromosome_vectors)
    codes = published.places.codes
    rows = published.gene_rows + np.array([codes["mouse", name] for name in vocabulary.chromosome_names])
    np.testing.assert_array_equal(
        vocabulary.vectors[: vocabulary.first_gene], published.table[[0, 1, 2, 3, *rows]].numpy()
    )


def test_imported_tables_are_found_by_species(
    published: Published, imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UCE_HOME", str(imported))
    assert load_gene_table("mouse_lemur", encoder="esm2_t48_15B_UR50D").species == "microcebus_murinus"
    assert load_model("old").name == "old"


def test_the_weights_own_table_wins_over_the_file_of_tokens(made_up: Published, tmp_path: Path) -> None:
    missing = tmp_path / "never-read.torch"
    folder = made_up.run(tmp_path, tokens=missing, species=["pig"])
    np.testing.assert_array_equal(load_model(folder).specials, made_up.table[:4].numpy())


@pytest.mark.parametrize("with_chromosomes", [False, True])
def test_a_file_of_tokens_serves_weights_without_their_own(
    published: Published, tmp_path: Path, with_chromosomes: bool
) -> None:
    state = {name: tensor for name, tensor in published.state.items() if name != "pe_embedding.weight"}
    torch.save(state, tmp_path / "weights.torch")
    tokens = published.table if with_chromosomes else published.table[: published.gene_rows].clone()
    torch.save(tokens, tmp_path / "all_tokens.torch")
    folder = published.run(
        tmp_path, weights=tmp_path / "weights.torch", tokens=tmp_path / "all_tokens.torch", species=["macaca_mulatta"]
    )
    drawn = torch.normal(0.0, 1.0, (published.chromosome_rows, WIDTH), generator=torch.Generator().manual_seed(23))
    expected = published.table[published.gene_rows :] if with_chromosomes else drawn
    code = published.places.codes["human", "1"]
    vectors = load_model(folder).chromosome_vectors
    np.testing.assert_array_equal(vectors["homo_sapiens:1"], expected[code].numpy())
    (block,) = imported_table(tmp_path, "macaca_mulatta").vectors[:1]
    assert (published.table[published.block("macaca_mulatta")].numpy() == block).all(axis=1).sum() == 1


def test_weights_without_tokens_and_tables_of_other_lengths_are_refused(made_up: Published, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in made_up.state.items() if name != "pe_embedding.weight"}
    torch.save(state, tmp_path / "weights.torch")
    torch.save(made_up.table[:99], tmp_path / "short.torch")
    with pytest.raises(ModelError, match=r"weights.torch: no table of tokens. Give all_tokens.torch as well"):
        made_up.run(tmp_path, weights=tmp_path / "weights.torch")
    with pytest.raises(ModelError, match=r"short.torch: a table of tokens of \(99, 8\); \(396, 8\) is needed"):
        made_up.run(tmp_path, weights=tmp_path / "weights.torch", tokens=tmp_path / "short.torch")
    torch.save({**state, "pe_embedding.weight": made_up.table[:99]}, tmp_path / "weights.torch")
    with pytest.raises(ModelError, match="a table of 99 tokens, not 396"):
        made_up.run(tmp_path, weights=tmp_path / "weights.torch")


def test_the_published_look_up_moves_genes_of_zebrafish_alone_and_has_its_own_kind(
    published: Published, imported: Path, tmp_path: Path
) -> None:
    folder = published.run(tmp_path, lookup="published", species=["zebrafish", "Homo sapiens"])
    shifted, aligned = (
        imported_table(tmp_path, "zebrafish", "esm2_t48_15B_UR50D+shifted"),
        imported_table(imported, "zebrafish"),
    )
    assert load_model(folder).gene_encoder == shifted.encoder == "esm2_t48_15B_UR50D+shifted"
    np.testing.assert_array_equal(shifted.vectors, aligned.vectors)
    assert float((shifted.starts != aligned.starts).mean()) > 0.7
    human = imported_table(tmp_path, "human", "esm2_t48_15B_UR50D+shifted")
    np.testing.assert_array_equal(human.starts, imported_table(imported, "human").starts)
    # Each gene takes the place of the gene that many repeats before it in the order of the keys.
    places = published.places
    zebrafish = places.species == "zebrafish"
    listed: dict[str, list[int]] = {}
    for symbol, start in zip(places.symbols[zebrafish].tolist(), places.starts[zebrafish].tolist(), strict=True):
        listed.setdefault(symbol, []).append(start)
    every = [start for symbol in published.keys["zebrafish"] for start in listed[symbol]]
    expected = dict(zip(published.keys["zebrafish"], every, strict=False))
    assert shifted.starts.tolist() == [expected[symbol] for symbol in shifted.ids.tolist()]


def test_both_look_ups_give_the_published_places_of_zebrafish(golden: Any, shared: Path) -> None:
    content = golden("sentences_zebrafish_duplicates")
    places = read_places(shared / "data" / "uce_artifacts" / "species_chrom.csv.gz")
    names = [name.upper() for name in content["var_names"].tolist()]
    for lookup, suffix in (("aligned", "first"), ("published", "misaligned")):
        rows = places.rows("zebrafish", names, lookup=lookup)  # type: ignore[arg-type]
        codes = [places.codes["zebrafish", str(places.chromosomes[row])] for row in rows]
        assert codes == content[f"chrom_code_{suffix}"][:60].tolist()
        np.testing.assert_array_equal(places.starts[rows], content[f"start_{suffix}"][:60])


def test_the_published_look_up_shifts_behind_a_repeated_symbol() -> None:
    symbols = ["A", "B", "B", "C", "D"]
    places = Places(np.array(symbols), np.array(list("12345")), np.arange(5), np.array(["x"] * 5))
    assert places.rows("x", ["D", "A", "B", "C"]).tolist() == [4, 0, 1, 3]
    assert places.rows("x", ["D", "B", "A", "C"], lookup="published").tolist() == [4, 1, 2, 0]
    assert places.rows("x", ["A", "Q", "B"]).tolist() == [0, -1, 1]
    assert places.rows("y", ["A"]).tolist() == [-1]
    with pytest.raises(UsageError, match="lookup = 'shifted': choose one of aligned, published"):
        places.rows("x", ["A"], lookup="shifted")  # type: ignore[arg-type]


def test_keys_that_become_one_keep_the_first_place_and_the_last_vector(tmp_path: Path) -> None:
    vectors = {"a": torch.ones(2), "B": torch.zeros(2), "A": torch.full((2,), 5.0)}
    torch.save(vectors, tmp_path / "x.pt")
    found = read_vectors(tmp_path / "x.pt")
    assert list(found) == ["A", "B"]
    assert found["A"].tolist() == [5, 5]


# {"frog": 4, "human": 13466} as protocols 4, 2 and 0 write it.
PICKLES = [
    b"\x80\x04\x95\x18\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x04frog\x94K\x04\x8c\x05human\x94M\x9a4u.",
    b"\x80\x02}q\x00(X\x04\x00\x00\x00frogq\x01K\x04X\x05\x00\x00\x00humanq\x02M\x9a4u.",
    b"(dp0\nVfrog\np1\nI4\nsVhuman\np2\nI13466\ns.",
]


@pytest.mark.parametrize("content", PICKLES, ids=["4", "2", "0"])
def test_offsets_are_read_from_every_protocol_without_unpickling(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "offsets.pkl"
    path.write_bytes(content)
    assert read_offsets(path) == {"frog": 4, "human": 13466}
    assert "GLOBAL" not in {opcode.name for opcode, _, _ in pickletools.genops(content)}


def test_a_gene_without_a_listed_place_is_left_out_and_counted(made_up: Published, tmp_path: Path) -> None:
    vectors = torch.load(made_up.file("pig"), weights_only=True)
    renamed = {("NOWHERE" if i == 7 else key): vector for i, (key, vector) in enumerate(vectors.items())}
    torch.save(renamed, tmp_path / made_up.file("pig").name)
    made_up.run(tmp_path, proteins=tmp_path, species=["pig"])
    table = imported_table(tmp_path, "pig")
    assert len(table) == len(made_up.keys["pig"]) - 1
    assert table.metadata["genes_without_place"] == 1


def test_a_dictionary_in_another_order_or_of_another_release_is_refused(made_up: Published, tmp_path: Path) -> None:
    vectors = torch.load(made_up.file("pig"), weights_only=True)
    path = tmp_path / made_up.file("pig").name
    torch.save(dict(reversed(vectors.items())), path)
    with pytest.raises(ModelError, match=r"other vectors than in the table of tokens. Its keys are in another order"):
        made_up.run(tmp_path, proteins=tmp_path, species=["pig"])
    torch.save(dict(list(vectors.items())[10:]), path)
    with pytest.raises(ModelError, match="37 symbols, the table of tokens has 46 rows for pig"):
        made_up.run(tmp_path, proteins=tmp_path, species=["pig"])


def test_species_without_a_file_or_an_offset_are_named(made_up: Published, tmp_path: Path) -> None:
    (tmp_path / made_up.file("pig").name).write_bytes(made_up.file("pig").read_bytes())
    with pytest.raises(ModelError, match=r"no vectors of xenopus_tropicalis, homo_sapiens, .*\(7 in all\)"):
        made_up.run(tmp_path, proteins=tmp_path)
    with pytest.raises(ModelError, match="no published genes of gallus_gallus; there are xenopus_tropicalis"):
        made_up.run(tmp_path, species=["chicken"])
    with pytest.raises(ModelError, match=r"files \*\.gene_symbol_to_embedding_ESM2\.pt are needed.*none found"):
        made_up.run(tmp_path, proteins=tmp_path / "nothing")


def test_a_second_import_keeps_equal_tables_and_refuses_others(made_up: Published, tmp_path: Path) -> None:
    made_up.run(tmp_path, species=["pig"])
    path = tmp_path / "genes" / "esm2_t48_15B_UR50D" / "sus_scrofa.h5ad"
    before = path.stat().st_mtime_ns
    made_up.run(tmp_path, species=["pig"], name="other")
    assert path.stat().st_mtime_ns == before
    with pytest.raises(OutputExistsError, match="old exists"):
        made_up.run(tmp_path, species=["pig"])
    changed = {**made_up.state, "pe_embedding.weight": made_up.table * 2}
    torch.save(changed, tmp_path / "weights.torch")
    with pytest.raises(OutputExistsError, match=r"sus_scrofa.h5ad exists and differs"):
        made_up.run(tmp_path, species=["pig"], name="third", weights=tmp_path / "weights.torch")
    made_up.run(tmp_path, species=["pig"], weights=tmp_path / "weights.torch", overwrite=True)
    np.testing.assert_allclose(load_model(tmp_path / "models" / "old").specials, 2 * made_up.table[:4].numpy())


def test_heads_of_an_unusual_width_must_be_told(published_state: Callable[..., dict[str, Tensor]]) -> None:
    state = published_state(layers=1, dim=12, hidden=16, protein_dim=WIDTH, out_dim=12)
    with pytest.raises(ModelError, match="w: 12 wide, not a multiple of 64; say how many attention heads it has"):
        published_encoder(state, path=Path("w"))
    assert published_encoder(state, path=Path("w"), heads=3).config.heads == 3


def test_weights_of_another_architecture_are_told_apart(published_state: Callable[..., dict[str, Tensor]]) -> None:
    state = published_state(layers=2, dim=64, hidden=16, protein_dim=WIDTH, out_dim=12)
    lacking = {name: tensor for name, tensor in state.items() if name != "transformer_encoder.layers.1.norm2.bias"}
    with pytest.raises(ModelError, match=r"nothing unknown, blocks.1.feed_forward_norm.bias missing"):
        published_encoder(lacking, path=Path("w"))
    with pytest.raises(ModelError, match=r"classifier.weight unknown, nothing missing"):
        published_encoder({**state, "classifier.weight": torch.ones(1)}, path=Path("w"))
    with pytest.raises(ModelError, match=r"pos_encoder.pe: shape \(3,\)"):
        published_encoder({**state, "pos_encoder.pe": torch.ones(3)}, path=Path("w"))
    with pytest.raises(ModelError, match=r"encoder.0.weight: missing"):
        published_encoder({}, path=Path("w"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns none found"),
        ("a,b\n1,2\n", "columns a, b found; gene_symbol, chromosome, start, species are needed"),
        ("gene_symbol,chromosome,start,species\n", "are needed"),
        ("gene_symbol,chromosome,start,species\nA,1,5,human\nB,1\n", r"line 3 is damaged \(B,1\)"),
        ("gene_symbol,chromosome,start,species\nA,1,5.5,human\n", "line 2 is damaged"),
        ("gene_symbol,chromosome,start,species\nA,1,-5,human\n", r"line 2 is damaged \(A,1,-5,human\)"),
    ],
)
def test_a_damaged_table_of_chromosomes_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "species_chrom.csv"
    path.write_text(text)
    with pytest.raises(ModelError, match=message):
        read_places(path)


def test_tables_and_offsets_of_other_species_are_refused(made_up: Published, tmp_path: Path) -> None:
    one = tmp_path / "one.csv"
    one.write_text("gene_symbol,chromosome,start,species\nA,1,5,human\n")
    with pytest.raises(ModelError, match=r"one.csv: 1 chromosomes; the published file has 44 of the 8 species"):
        made_up.run(tmp_path, chromosomes=one)
    for offsets in ({"frog": 5}, {"frog": 4, "human": 4}, {"frog": 4, "human": 999_999}, {"frog": 4, "elf": 9}):
        path = tmp_path / "offsets.json"
        path.write_text(json.dumps(offsets))
        with pytest.raises(ModelError, match="not the offsets of the published table"):
            made_up.run(tmp_path, offsets=path)


def test_the_command_line_imports_and_then_embeds_real_cells(
    real: Published, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a user would: files of exactly the published form in, cells of a real file out."""
    import anndata as ad

    from uce.cli.main import main

    monkeypatch.chdir(tmp_path)
    files = shared / "data" / "uce_artifacts"
    words = ["models", "import", str(real.folder / "weights.torch"), "--name", "toy-4l", "--species", "human"]
    words += ["--chromosomes", str(files / "species_chrom.csv.gz"), "--offsets", str(files / "species_offsets.pkl")]
    assert main([*words, "--proteins", str(real.folder)]) == 0
    cells = shared / "data" / "cells" / "human_embryo_blakeley.h5ad"
    assert main(["embed", str(cells), "-o", "out.h5ad", "--model", "toy-4l", "--species", "human"]) == 0
    result = ad.read_h5ad("out.h5ad")
    assert result.obsm["X_uce"].shape == (30, 12)
    np.testing.assert_allclose(np.linalg.norm(result.obsm["X_uce"], axis=1), 1, atol=1e-6)
    record = result.uns["uce"]["X_uce"]
    assert record["gene_vectors"] == "esm2_t48_15B_UR50D"
    assert record["health"]["counts_covered"] > 0.9
    assert main(["verify", "out.h5ad"]) == 0
    # A species that was not imported has no vectors of this kind.
    mouse = shared / "data" / "cells" / "mouse_es_mef_islam.h5ad"
    assert main(["embed", str(mouse), "-o", "no.h5ad", "--model", "toy-4l", "--species", "mouse"]) == 4
    assert "no gene table of mouse" in capsys.readouterr().err
    assert main([*words, "--proteins", str(real.folder)]) == 5


@pytest.mark.parametrize("lookup", ["aligned", "published"])
def test_a_species_added_for_a_published_model_is_read_with_the_published_tokens_of_its_chromosomes(
    made_up: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lookup: Lookup
) -> None:
    """Vectors of the same encoder, tokens of chromosomes drawn under the taxonomy id, whatever the look-up."""
    monkeypatch.setenv("UCE_HOME", str(tmp_path))
    made_up.run(tmp_path, lookup=lookup)
    model = load_model("old")
    width, genes = model.config.protein_dim, [f"Gene{i}" for i in range(60)]
    torch.save({gene: torch.randn(width) for gene in genes}, tmp_path / "hare.pt")
    rows = ["gene_id,symbol,chromosome,start", *(f"H{i:03},{gene},{i % 3},{i + 1}" for i, gene in enumerate(genes))]
    (tmp_path / "genes.csv").write_text("\n".join(rows))
    sources = Sources(embeddings=tmp_path / "hare.pt", annotation=tmp_path / "genes.csv")
    added = add_species("lepus_europaeus", sources, taxon=9983, encoder="esm2_t48_15B_UR50D", quiet=True)
    assert added is not None
    table = load_gene_table("lepus_europaeus", encoder=model.gene_encoder)
    vocabulary = build_vocabulary(table, model.specials, chromosome_vectors=model.chromosome_vectors)
    torch.manual_seed(9983)
    drawn = torch.normal(mean=0.0, std=1.0, size=(3, width)).numpy()
    np.testing.assert_array_equal(vocabulary.vectors[4:7], drawn)
    counts = csr_matrix(np.random.default_rng(0).poisson(3.0, size=(5, 60)).astype(float))
    vectors = uce.embed_counts(counts, genes, model=model, species="lepus_europaeus")
    assert np.isfinite(vectors).all()
