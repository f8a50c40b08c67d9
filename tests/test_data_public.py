"""The public datasets, from small files as their publishers ship them."""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gram.data.catalogue import read_products
from gram.data.dataset import Dataset, Judged, Judgement, split_judgements, split_part
from gram.data.log import read_log, read_qrels, read_queries
from gram.data.public import chorus, crowdflower, esci, homedepot, wands
from gram.data.public.markup import plain_text
from gram.errors import BadRow, DataError, MissingColumn
from gram.records import Interaction, Product

MINI = Path(__file__).parents[2] / "shared/data/esci_mini"


def test_the_split_is_sha1_modulo_ten() -> None:
    # printf '2 angl bracket' | sha1sum is 0ca8a5…9ca25fbc, 4 modulo 10; '2 drill' 1b6afa…f3ba3089, 7;
    # '2 hammer' a97e6e…7d91f68a, 8
    assert [split_part(query) for query in ("angle bracket", "drill", "hammer")] == ["train", "dev", "test"]


@pytest.mark.parametrize("variant", ["rubber mats", "Mat, RUBBER", "mats rubber mat", "rubbers-mat "])
def test_no_variant_of_a_query_stands_on_the_other_side(variant: str) -> None:
    said = hashlib.sha1(b"2 mat rubber").hexdigest()  # d6360a…3b1578bd, 1 modulo 10
    assert (int(said, 16) % 10, split_part(variant)) == (1, "train")


def test_the_split_is_seven_to_one_to_two() -> None:
    shares = Counter(split_part(f"query {n}") for n in range(5000))
    assert [round(shares[part] / 5000, 1) for part in ("train", "dev", "test")] == [0.7, 0.1, 0.2]


def test_of_a_pair_judged_twice_the_higher_grade_counts() -> None:
    judgements = [Judgement("dev", "1", "drill", "a", 1.0, grade) for grade in (0.0, 2.0, 1.0)]
    assert split_judgements([], judgements).parts["dev"] == Judged({"1": "drill"}, {"1": {"a": 2.0}})


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<ul><li>One<li>Two &amp; three</ul>", "One Two & three"),
        ("a < b > c, 5 <6", "a < b > c, 5 <6"),
        ("<style>p {}</style>x<!-- <b> -->y<SCRIPT>z</SCRIPT >", "x y"),
        ("no\nmarkup &#39;here&#39;", "no markup 'here'"),
    ],
)
def test_plain_text(markup: str, text: str) -> None:
    assert plain_text(markup) == text


TRAIN = """"id","product_uid","product_title","search_term","relevance"
2,100001,"Simpson 12-Gauge Angle","angle bracket",3
3,100001,"Simpson 12-Gauge Angle","l bracket",2.33
9,100002,"BEHR &amp; Sons 1-gal. Caf\xe9","hammer",3
10,100002,"BEHR 1-gal.","angle bracket",2
16,100005,"Delta 6 ft. ""Vero"" Faucet","drill",1.5
17,100001,"Simpson 12-Gauge Angle","drill",1.33
18,100002,"BEHR 1-gal.","drill",2.67
"""


def home_depot(folder: Path) -> dict[str, Path]:
    """The files that stand beside each other once all of them are downloaded."""
    paths = {"train_csv": folder / "train.csv.zip"}
    with zipfile.ZipFile(paths["train_csv"], "w") as archive:
        archive.writestr("train.csv", TRAIN.encode("latin-1"))
    files = {
        "brand": ",product_uid,brand\n9,100001.0,Simpson\n37,100002.0,Unbranded\n38,999999.0,Other\n",
        "colour": ",product_uid,color\n0,100002.0,White White\n1,100005.0,nan\n",
        "material": ",product_uid,material\n0,100001.0,Galvanized Steel\n",
        "attributes": '"product_uid","name","value"\n100001,"Bullet01","Strong &amp; <b>light</b>"\n'
        '100002,"MFG Brand Name","BEHR"\n100001,"MFG Brand Name","Simpson Co"\n100001,"Gauge","12"\n'
        '100001,"material","Steel"\n,,\n',
        "descriptions": '"product_uid","product_description"\n100001,"Not only do angles make joints stronger"\n',
    }
    for name, text in files.items():
        paths[name] = folder / f"{name}.csv"
        paths[name].write_text(text, encoding="latin-1")
    return paths


def test_home_depot_titles_and_judgements(tmp_path: Path) -> None:
    dataset = homedepot.load(home_depot(tmp_path)["train_csv"])
    assert dataset == Dataset(
        [
            Product("100001", "Simpson 12-Gauge Angle"),
            Product("100002", "BEHR & Sons 1-gal. Café"),
            Product("100005", 'Delta 6 ft. "Vero" Faucet'),
        ],
        [Interaction("angle bracket", "100001"), Interaction("l bracket", "100001")],
        {
            "dev": Judged({"4": "drill"}, {"4": {"100005": 1.0, "100001": 0.0, "100002": 2.0}}),
            "test": Judged({"3": "hammer"}, {"3": {"100002": 3.0}}),
        },
        Judged({"1": "angle bracket", "2": "l bracket"}, {"1": {"100001": 3.0, "100002": 1.0}, "2": {"100001": 2.0}}),
    )


def test_home_depot_with_all_that_stands_beside_it(tmp_path: Path) -> None:
    products = homedepot.load(**home_depot(tmp_path)).products
    assert products == [
        Product(
            "100001",
            "Simpson 12-Gauge Angle",
            brand="Simpson",
            description="Not only do angles make joints stronger Strong & light",
            attributes={"material": ("Galvanized Steel", "Steel"), "Gauge": ("12",)},
        ),
        Product("100002", "BEHR & Sons 1-gal. Café", brand="BEHR", attributes={"color": ("White",)}),
        Product("100005", 'Delta 6 ft. "Vero" Faucet'),
    ]


def test_home_depot_errors(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(TRAIN.replace(",1.33", ",4"), encoding="latin-1")
    with pytest.raises(
        BadRow, match=r"train.csv: line 7, column 'relevance': not between 1 and 3 \(value: '4'\) Fix: "
    ):
        homedepot.load(path)
    path.write_text("id,product_uid,product_title,search_term\n")
    with pytest.raises(MissingColumn, match="'relevance'; found 'id', 'product_uid'"):
        homedepot.load(path)


FLOWERS = """"id","query","product_title","product_description","median_relevance","relevance_variance"
1,"drill","Desk Fan","<p>Quiet
&amp; small</p>",4,0
2,"drill","Wall Fan","",3,0.471
4,"hammer","Desk Fan","Quiet & small",1,0
5,"angle bracket","Steel Angle","",4,0
7,"angle bracket","Wall Fan","",2,0.5
8,"drill","Steel Angle","",4,0
"""


def test_crowdflower_rows_of_one_text_are_one_product(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(FLOWERS, encoding="utf-8")
    assert crowdflower.load(path) == Dataset(
        [Product("1", "Desk Fan", description="Quiet & small"), Product("2", "Wall Fan"), Product("5", "Steel Angle")],
        [Interaction("angle bracket", "5")],
        {
            "dev": Judged({"1": "drill"}, {"1": {"1": 2.0, "2": 1.0, "5": 2.0}}),
            "test": Judged({"2": "hammer"}, {"2": {"1": 0.0}}),
        },
        Judged({"3": "angle bracket"}, {"3": {"5": 2.0, "2": 0.0}}),
    )


def test_crowdflower_errors(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(FLOWERS.replace(",2,0.5", ",5,0.5"), encoding="utf-8")
    with pytest.raises(BadRow, match=r"train.csv: line 7, column 'median_relevance': not 1, 2, 3 or 4 .*'5'"):
        crowdflower.load(path)
    path.write_text(FLOWERS.replace("median_relevance", "median"), encoding="utf-8")
    with pytest.raises(MissingColumn, match="'median_relevance'"):
        crowdflower.load(path)


def write_chorus(folder: Path, products: str, judgements: str) -> None:
    (folder / "katas").mkdir(exist_ok=True)
    (folder / "katas/Broad_Query_Set_rated.csv").write_text(f"query,docid,rating\n{judgements}")
    data = folder / "data-encoder/ecommerce/vectors/data"
    data.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate((products, '[{"id": "9", "title": "Lamp"}]'), 1):
        with zipfile.ZipFile(data / f"{number}.json.zip", "w") as archive:
            archive.writestr(f"{number}.json", text)


MOUSE = (
    '{"id": "7", "title": "Mouse", "supplier": "HP", "price": 1795, "short_description": "A mouse", "ean": ["1"], '
    '"attr_t_cable__colour": "Blue", "attr_n_buttons": 3.0, "attr_b_wireless": true}'
)


def test_chorus(tmp_path: Path) -> None:
    products = f'[{MOUSE}, {{"id": "8", "title": "Bracket"}}]'
    write_chorus(tmp_path, products, "angle bracket,8,3\nangle bracket,7,1\ndrill,7,0\n")
    dataset = chorus.load(tmp_path)
    attributes = {"cable colour": ("Blue",), "buttons": ("3",)}
    assert dataset == Dataset(
        [
            Product("7", "Mouse", "HP", (), "A mouse", 17.95, attributes=attributes),
            Product("8", "Bracket"),
            Product("9", "Lamp"),
        ],
        [Interaction("angle bracket", "8", 3.0)],
        {"dev": Judged({"2": "drill"}, {"2": {"7": 0.0}}), "test": Judged({}, {})},
        Judged({"1": "angle bracket"}, {"1": {"8": 3.0, "7": 1.0}}),
    )
    every = Judged({"1": "angle bracket", "2": "drill"}, {"1": {"8": 3.0, "7": 1.0}, "2": {"7": 0.0}})
    assert dataset.without_log() == Dataset(dataset.products, [], {"dev": every, "test": every})


def test_a_folder_without_chorus_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"name a checkout of github.com/querqy/chorus"):
        chorus.load(tmp_path)


@pytest.mark.parametrize(
    ("products", "judgements", "error", "told"),
    [
        (f"[{MOUSE}]", "drill,7,0\ndrill,6,1\n", BadRow, r"rated.csv: line 3, column 'docid': no such product .*'6'"),
        (f"[{MOUSE}]", "drill,7,4\n", BadRow, r"line 2, column 'rating': not 0, 1, 2 or 3 .*'4'"),
        (f"[{MOUSE}]", "", DataError, r"rated\.csv: holds no ratings\. Fix: "),
        (f'[{MOUSE}, {{"id": "8", "title": ""}}]', "drill,7,0\n", BadRow, r"1.json.zip: line 2, column 'title'"),
        (
            f"[{MOUSE}, {MOUSE}]", "drill,7,0\n", BadRow,
            r"line 2, column 'id': there is a product of this id already \(value: '7'\)",
        ),
        ('[{"id": "7"}]', "drill,7,0\n", MissingColumn, r"1.json.zip: there is no column 'title'"),
        (f"[{MOUSE}, {MOUSE[:-1]}", "drill,7,0\n", DataError, r"1.json.zip: is no JSON"),
        (MOUSE, "drill,7,0\n", DataError, r"1.json.zip: is no list of products"),
    ],
)  # fmt: skip
def test_chorus_errors(tmp_path: Path, products: str, judgements: str, error: type[DataError], told: str) -> None:
    write_chorus(tmp_path, products, judgements)
    with pytest.raises(error, match=told):
        chorus.load(tmp_path)


@pytest.mark.parametrize(
    ("price", "read"), [("1795", 17.95), ('"1795"', 17.95), ("1795.0", 17.95), ("17.95", 0.1795), ("null", None)]
)
def test_chorus_prices_are_cents_however_they_are_written(tmp_path: Path, price: str, read: float | None) -> None:
    write_chorus(tmp_path, f"[{MOUSE.replace('1795', price)}]", "drill,7,0\n")
    assert chorus.load(tmp_path).products[0].price == read


@pytest.mark.parametrize("price", ["true", '"cheap"', "[1]", "-5"])
def test_a_chorus_price_that_is_none_is_named(tmp_path: Path, price: str) -> None:
    write_chorus(tmp_path, f"[{MOUSE.replace('1795', price)}]", "drill,7,0\n")
    with pytest.raises(BadRow, match=r"1.json.zip: line 1, column 'price': "):
        chorus.load(tmp_path)


def test_chorus_counts_nothing_twice(tmp_path: Path) -> None:
    rows = ["angle bracket,7,2", "angle bracket,7,3", "angle bracket,7,3", "angle bracket,7,0"]
    write_chorus(tmp_path, f"[{MOUSE}]", "\n".join(rows))
    dataset = chorus.load(tmp_path)
    assert (dataset.log, dataset.training.qrels) == ([Interaction("angle bracket", "7", 3.0)], {"1": {"7": 3.0}})


def test_a_written_dataset_reads_back(tmp_path: Path) -> None:
    dataset = homedepot.load(**home_depot(tmp_path))
    folder = tmp_path / "written"
    dataset.write(folder)
    names = [f"{part}.{kind}.tsv" for part in ("dev", "test") for kind in ("qrels", "queries")]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, "log.tsv", "products.jsonl.gz"])
    products = read_products(folder / "products.jsonl.gz")
    parts = {
        p: Judged(read_queries(folder / f"{p}.queries.tsv"), read_qrels(folder / f"{p}.qrels.tsv"))
        for p in dataset.parts
    }
    log = read_log(folder / "log.tsv", {p.product_id for p in products})
    assert Dataset(products, log, parts, dataset.training) == dataset


def write_esci(folder: Path, **changed: list[object]) -> None:
    """Two queries of training, one of them dev by its text, and one of test; Spanish and large-only rows beside."""
    examples: dict[str, list[object]] = {
        "example_id": [0, 1, 2, 3, 4, 5, 6],
        "query": [*[" angle bracket"] * 4, "drill", "sofá", "deck"],
        "query_id": [10, 10, 10, 10, 11, 12, 13],
        "product_id": ["B1", "B2", "B3", "B4", "B2", "B1", "B5"],
        "product_locale": ["us", "us", "us", "us", "us", "es", "us"],
        "esci_label": ["E", "S", "C", "I", "S", "E", "E"],
        "small_version": [1, 1, 1, 1, 1, 1, 0],
        "large_version": [1, 1, 1, 1, 1, 1, 1],
        "split": [*["train"] * 6, "test"],
    }
    products = {
        "product_id": ["B1", "B1", "B2", "B3", "B4", "B5", "B6"],
        "product_title": ["Bracket", "Soporte", "L &quot;bracket", None, "Hook", "Deck", "Unjudged"],
        "product_description": ["<p>Strong</p><p>angle</p>", None, None, None, None, None, None],
        "product_bullet_point": ["Steel\nZinc", None, None, None, None, None, None],
        "product_brand": ["Simpson", None, None, None, None, None, None],
        "product_color": ["Silver", None, "", None, None, None, None],
        "product_locale": ["us", "es", "us", "us", "us", "us", "us"],
    }
    pq.write_table(pa.table({**examples, **changed}), folder / "shopping_queries_dataset_examples.parquet")
    pq.write_table(pa.table(products), folder / "shopping_queries_dataset_products.parquet")


def test_esci(tmp_path: Path) -> None:
    write_esci(tmp_path)
    dataset = esci.load(tmp_path)
    bracket = Product(
        "B1", "Bracket", brand="Simpson", description="Strong angle Steel Zinc", attributes={"color": ("Silver",)}
    )
    assert dataset.products == [bracket, Product("B2", 'L "bracket'), Product("B3", "B3"), Product("B4", "Hook")]
    assert dataset.log == [Interaction("angle bracket", "B1", 1.0), Interaction("angle bracket", "B2", 0.5)]
    assert dataset.parts == {"dev": Judged({"11": "drill"}, {"11": {"B2": 2.0}}), "test": Judged({}, {})}
    large = esci.load(tmp_path, version="large")
    assert large.parts["test"] == Judged({"13": "deck"}, {"13": {"B5": 3.0}})  # of test though its text says train
    assert [product.product_id for product in large.products] == ["B1", "B2", "B3", "B4", "B5"]
    assert [product.title for product in esci.load(tmp_path, "es").products] == ["Soporte"]


def test_esci_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no ESCI files. Fix: put shopping_queries_dataset_examples.parquet"):
        esci.load(tmp_path)
    write_esci(tmp_path)
    with pytest.raises(DataError, match="holds nothing of locale 'fr', version 'small'"):
        esci.load(tmp_path, "fr")
    write_esci(tmp_path, esci_label=["E", "exact", "C", "I", "S", "E", "E"])
    with pytest.raises(BadRow, match=r"line 2, column 'esci_label': not one of E, S, C, I \(value: 'exact'\) Fix: "):
        esci.load(tmp_path)
    write_esci(tmp_path, split=["train", "train", "valid", "train", "train", "train", "test"])
    with pytest.raises(BadRow, match=r"line 3, column 'split': neither train nor test \(value: 'valid'\)"):
        esci.load(tmp_path)


def test_esci_as_text(tmp_path: Path) -> None:
    (tmp_path / "products.jsonl").write_text(
        '{"product_id": "B1", "title": "Bracket", "color": "Silver", "bullets": "Steel<br>Zinc"}\n'
        '{"product_id": "B2", "title": "Deck", "brand": "BEHR", "description": "Paint"}\n'
    )
    (tmp_path / "judgments.tsv").write_text(
        "query\tproduct_id\tesci_label\nangle bracket\tB1\tS\ndrill\tB2\tI\nangle bracket\tB2\tC\nhammer\tB2\tE\n"
    )
    assert esci.load(tmp_path) == Dataset(
        [
            Product("B1", "Bracket", description="Steel Zinc", attributes={"color": ("Silver",)}),
            Product("B2", "Deck", brand="BEHR", description="Paint"),
        ],
        [Interaction("angle bracket", "B1", 0.5)],
        {"dev": Judged({"2": "drill"}, {"2": {"B2": 0.0}}), "test": Judged({"3": "hammer"}, {"3": {"B2": 3.0}})},
        Judged({"1": "angle bracket"}, {"1": {"B1": 2.0, "B2": 1.0}}),
    )


@pytest.mark.skipif(not MINI.exists(), reason="the cut of ESCI is not beside this checkout")
def test_esci_mini() -> None:
    dataset = esci.load(MINI)
    judged = [pair for part in dataset.parts.values() for grades in part.qrels.values() for pair in grades]
    queries = {interaction.query for interaction in dataset.log}
    assert (len(dataset.products), len(dataset.log), len(judged)) == (2206, 1394, 214 + 423)
    assert {split_part(query) for query in queries} == {"train"}
    assert set(judged) <= {product.product_id for product in dataset.products}


FILES = {
    "product.csv": "product_id\tproduct_name\tproduct_class\tcategory hierarchy\tproduct_description\t"
    "product_features\trating_count\taverage_rating\treview_count\n"
    '0\tsolid wood platform bed\tBeds\tFurniture / Bedroom Furniture / Beds\tgood , deep 12" sleep\t'
    "overallwidth-sidetoside:64.7|Color : red|color : blue|framematerial : wood|nokey\t15.0\t4.5\t15.0\n"
    '1\trug\tArea Rugs|Kids Rugs\t\t"one ""big""\trug"\t\t\t\t\n',
    "query.csv": "query_id\tquery\tquery_class\n0\tangle bracket\tHardware\n1\tdrill\tFans\n2\thammer\tTools\n",
    "label.csv": "id\tquery_id\tproduct_id\tlabel\n0\t0\t0\tExact\n1\t0\t1\tPartial\n2\t1\t1\tPartial\n3\t2\t0\tExact\n"
    "4\t2\t1\tIrrelevant\n",
}


def write_wands(folder: Path, **changed: str) -> None:
    for name, text in FILES.items():
        (folder / name).write_text(changed.get(name.removesuffix(".csv"), text))


def test_wands(tmp_path: Path) -> None:
    write_wands(tmp_path)
    assert wands.load(tmp_path) == Dataset(
        [
            Product(
                "0",
                "solid wood platform bed",
                category=("Furniture", "Bedroom Furniture", "Beds"),
                description='good , deep 12" sleep',
                value=15.0,
                attributes={
                    "overallwidth-sidetoside": ("64.7",),
                    "color": ("red", "blue"),
                    "framematerial": ("wood",),
                    "product_class": ("Beds",),
                },
            ),
            Product(
                "1",
                "rug",
                category=("Area Rugs",),
                description='one "big" rug',
                attributes={"product_class": ("Area Rugs", "Kids Rugs")},
            ),
        ],
        [Interaction("angle bracket", "0")],
        {
            "dev": Judged({"1": "drill"}, {"1": {"1": 1.0}}),
            "test": Judged({"2": "hammer"}, {"2": {"0": 2.0, "1": 0.0}}),
        },
        Judged({"0": "angle bracket"}, {"0": {"0": 2.0, "1": 1.0}}),
    )


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("0\t0\t0\tGood\n", "line 2, column 'label': not one of Exact, Partial, Irrelevant (value: 'Good') Fix: "),
        ("0\t9\t0\tExact\n", "line 2, column 'query_id': no such query in query.csv (value: '9') Fix: "),
    ],
)
def test_wands_errors(tmp_path: Path, label: str, says: str) -> None:
    write_wands(tmp_path, label="id\tquery_id\tproduct_id\tlabel\n" + label)
    with pytest.raises(BadRow) as caught:
        wands.load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'label.csv'}: {says}")


def test_wands_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"product.csv: there is no such file"):
        wands.load(tmp_path)
