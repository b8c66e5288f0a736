"""Tables in text: what is read, how the target is understood, and how each fault is named."""

from __future__ import annotations

import random
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpunn.data import Dataset, load, read_csv, table
from gpunn.errors import ArgumentError, FormatError, UnknownNameError


@pytest.fixture
def read(tmp_path):
    def read_text(content: str | bytes, **arguments) -> Dataset:
        path = tmp_path / "table.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_csv(path, **arguments)

    return read_text


TABLES = {
    "commas": "1,2,0\n3,4,1\n",
    "semicolons": "1;2;0\n3;4;1\n",
    "tabs": "1\t2\t0\n3\t4\t1\n",
    "a header": "a,b,y\n1,2,0\n3,4,1\n",
    "a header with an unnamed column": ",b,y\n1,2,0\n3,4,1\n",
    "a byte-order mark": "\ufeffa,b,y\n1,2,0\n3,4,1\n",
    "a byte-order mark and no header": "\ufeff1,2,0\n3,4,1\n",
    "no line feed at the end": "1,2,0\n3,4,1",
    "carriage returns": "a,b,y\r\n1,2,0\r\n3,4,1\r\n",
    "carriage returns alone": "a,b,y\r1,2,0\r3,4,1\r",
    "blank lines": "\n\na,b,y\n\n1,2,0\n\n3,4,1\n\n",
    "lines of spaces": "1,2,0\n   \n3,4,1\n  \n",
    "spaces around cells": " 1 , 2,0 \n3,4 ,1\n",
    "every way to write a number": "+1.0,2e0,0\n.3E1,4.,1\n",
    "quoted numbers": '"1","2","0"\n"3","4","1"\n',
    "a quoted header": '"a","b","y"\n1,2,0\n3,4,1\n',
    "a header with a delimiter in quotes": '"a,a",b,y\n1,2,0\n3,4,1\n',
    "a header of two lines in quotes": '"a\na",b,y\n1,2,0\n3,4,1\n',
    "quotes after a space": 'a, b, y\n1, "2", "0"\n3, 4, "1"\n',
}


@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
def test_a_table_is_read_with(read, content):
    data = read(content)
    np.testing.assert_array_equal(data.train.X, [[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(data.train.y, [0, 1])
    assert (data.train.X.dtype, data.train.y.dtype) == (np.float64, np.int64)
    assert data.train.X.flags.c_contiguous
    assert data.classes == data.train.classes == ("0", "1")
    assert (data.name, data.validation, data.test) == ("table", None, None)


@pytest.mark.parametrize("delimiter", ["|", " ", ":", "#", "·"])
def test_any_other_delimiter_can_be_given(read, delimiter):
    data = read("1,2,0\n3,4,1\n".replace(",", delimiter), delimiter=delimiter)
    np.testing.assert_array_equal(data.train.X, [[1.0, 2.0], [3.0, 4.0]])


def test_a_space_as_delimiter_is_not_skipped_where_quotes_are_read(read):
    data = read('1 "2" 0\n3 4 1\n', delimiter=" ")
    np.testing.assert_array_equal(data.train.X, [[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    ("content", "delimiter"),
    [("1;2;a,b\n3;4;c\n", ";"), ("1,2,a;b\n3,4,c\n", ","), ("1,2,a;b\n3,c\n4,5,d\n", ",")],
    ids=["semicolons with one comma", "commas with one semicolon", "commas in ragged rows"],
)
def test_the_delimiter_is_the_one_that_makes_the_rows_agree(tmp_path, content, delimiter):
    path = tmp_path / "sniffed.csv"
    path.write_text(content)
    assert table._sniff(str(path)) == delimiter


TARGETS = {
    "words": (["dog", "cat", "dog"], [1, 0, 1], np.int64, ("cat", "dog")),
    "words beyond ASCII": (["œuf", "Ei", "蛋"], [1, 0, 2], np.int64, ("Ei", "œuf", "蛋")),
    "quoted words": (['"x, y"', '"a ""b"""', "c"], [2, 0, 1], np.int64, ('a "b"', "c", "x, y")),
    "words with spaces around": ([" b", "a ", "b"], [1, 0, 1], np.int64, ("a", "b")),
    "0..k-1": (["2", "0", "1"], [2, 0, 1], np.int64, ("0", "1", "2")),
    "quoted 0..k-1": (['"2"', '"0"', '"1"'], [2, 0, 1], np.int64, ("0", "1", "2")),
    "whole numbers with a gap": (["0", "1", "3"], [0, 1, 3], np.int64, None),
    "whole numbers from 1": (["1", "2", "3"], [1, 2, 3], np.int64, None),
    "whole numbers below 0": (["-1", "+1", "-1"], [-1, 1, -1], np.int64, None),
    "whole numbers that floats cannot hold": (
        ["9007199254740993", "0", "1"],
        [9007199254740993, 0, 1],
        np.int64,
        None,
    ),
    "whole numbers that 64 bits cannot hold": (
        ["1" * 30, "0", "1"],
        [float("1" * 30), 0, 1],
        np.float64,
        None,
    ),
    "quoted whole numbers that 64 bits cannot hold": (
        ['"' + "1" * 30 + '"', "0", "1"],
        [float("1" * 30), 0, 1],
        np.float64,
        None,
    ),
    "floats": (["0.5", "1", "2"], [0.5, 1.0, 2.0], np.float64, None),
    "whole numbers written as floats": (["0.0", "1.0", "2.0"], [0.0, 1.0, 2.0], np.float64, None),
    "one whole number written as a float": (["0", "1", "2e0"], [0.0, 1.0, 2.0], np.float64, None),
}


@pytest.mark.parametrize(("cells", "y", "dtype", "classes"), TARGETS.values(), ids=TARGETS)
def test_a_target_column_of(read, cells, y, dtype, classes):
    data = read("".join(f"{row}.5,{cell}\n" for row, cell in enumerate(cells)))
    np.testing.assert_array_equal(data.train.y, y)
    assert data.train.y.dtype == dtype
    assert data.classes == classes
    np.testing.assert_array_equal(data.train.X, [[0.5], [1.5], [2.5]])


@pytest.mark.parametrize(
    "target", [1, -2, "kind", np.int64(1)], ids=["index", "from the end", "name", "NumPy integer"]
)
@pytest.mark.parametrize("quote", ["", '"'], ids=["plain", "quoted"])
def test_the_target_may_be_any_column(read, target, quote):
    data = read(f"a,kind,b\n1,{quote}x{quote},2\n3,w,4\n", target=target)
    np.testing.assert_array_equal(data.train.X, [[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(data.train.y, [1, 0])


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (["z", "x"], "zx"),
        (("x", "z"), "xz"),
        ([-1, 0], "zw"),
        ([np.int64(0), "z"], "wz"),
        (["z"], "z"),
        (["z", "y", "w"], "zyw"),
    ],
)
@pytest.mark.parametrize("quote", ["", '"'], ids=["plain", "quoted"])
def test_several_columns_may_be_targets(read, target, names, quote):
    columns = {"w": [1, 5], "x": [2, 6], "y": [3, 7.5], "z": [0, 1]}
    data = read(f"w,x,y,z\n1,{quote}2{quote},3,0\n5,6,7.5,1\n", target=target)
    np.testing.assert_array_equal(data.train.y, np.transpose([columns[name] for name in names]))
    features = [column for name, column in columns.items() if name not in names]
    np.testing.assert_array_equal(data.train.X, np.transpose(features))
    assert (data.train.y.dtype, data.train.X.dtype, data.classes) == (np.float64, np.float64, None)
    assert data.train.y.flags.c_contiguous
    assert data.train.X.flags.c_contiguous
    assert data.target_names == data.train.target_names == tuple(names)


def test_the_name_of_a_target_may_hold_the_delimiter(read):
    data = read('x,"rent, net",price\n1,2,3\n', target=["price", "rent, net"])
    assert data.target_names == ("price", "rent, net")
    np.testing.assert_array_equal(data.train.y, [[3, 2]])


def test_several_targets_beyond_one_block_keep_their_places(read):
    X = np.arange(300_000).reshape(-1, 3)
    data = read("".join(f"{a},{b},{c}\n" for a, b, c in X), target=[2, 0])
    np.testing.assert_array_equal(data.train.X, X[:, 1:2])
    np.testing.assert_array_equal(data.train.y, X[:, [2, 0]])


def test_several_targets_without_a_header_have_no_names(read):
    data = read("1,2,0\n3,4,1\n", target=[2, 0])
    np.testing.assert_array_equal(data.train.y, [[0, 1], [1, 3]])
    assert data.target_names is None


def test_one_target_has_no_names_of_outputs(read):
    assert read("a,b,y\n1,2,0\n3,4,1\n", target="y").target_names is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "a,y,z\n1,dog,2\n3,cat,4\n",
            r"line 2, column 2 \('y'\) holds 'dog', .* only a target that is alone",
        ),
        ("1,dog,2\n3,cat,4\n", "line 1, column 2 holds 'dog', expected a number: .* the names of classes"),
        ("a,y,z\n1,2,3\n3,cat,4\n", r"line 3, column 2 \('y'\) holds 'cat'"),
        ("a,y,z\n1,2,\n", r"line 2, column 3 \('z'\) is empty, expected a number"),
        ("a,y,z\n1,2,nan\n", "holds 'nan', expected a finite number"),
        ("a,y,z\n1,2\n", "line 2 has 2 columns, expected 3"),
        ("a,y,z\n", "holds a header and no rows"),
        ("y,z\n1,2\n", "has 2 columns, each of them a target"),
        ("y\n1\n", "target is column -2|has 1 column"),
    ],
)
def test_several_targets_are_refused_for(read, content, message):
    with pytest.raises((FormatError, ArgumentError), match=message):
        read(content, target=[-2, -1])


def test_two_columns_of_one_name_can_be_told_apart_by_index(read):
    with pytest.raises(FormatError, match="2 columns are called 'y'"):
        read("y,y,a\n1,2,3\n", target=["y", "a"])
    assert read("y,y,a\n1,2,3\n", target=[0, 1], header=True).target_names == ("y", "y")


@pytest.mark.parametrize("content", ["a,b\n1,2\n3,4\n", '"a",b\n1,2\n3,4\n'], ids=["plain", "quoted"])
def test_without_a_target_every_column_is_a_feature(read, content):
    data = read(content, target=None)
    np.testing.assert_array_equal(data.train.X, [[1.0, 2.0], [3.0, 4.0]])
    assert data.train.y is None
    assert data.classes is None


@pytest.mark.parametrize(
    ("first", "is_header"),
    [
        ("a,b,kind", True),
        ("a,,kind", True),
        ("a,b,7", True),
        ("1,2,kind", False),
        ("1,2,7", False),
    ],
)
def test_the_header_is_a_first_row_without_numbers_among_its_features(read, first, is_header):
    last = "1" if first.endswith("7") else "dog"
    assert len(read(f"{first}\n3,4,{last}\n").train) == (1 if is_header else 2)


def test_a_header_of_numbers_can_be_announced(read):
    assert len(read("0,1,2\n3,4,0\n", header=True).train) == 1


def test_a_row_of_words_can_be_said_to_be_no_header(read):
    with pytest.raises(FormatError, match=r"line 1, column 1 holds 'a', expected a number"):
        read("a,b,y\n3,4,0\n", header=False)


def test_a_line_may_be_as_long_as_it_likes(read):
    data = read("\n".join([",".join(["12"] * 100_000), ",".join(["13"] * 100_000)]))
    assert data.train.X.shape == (2, 99_999)


def test_rows_beyond_one_block_keep_their_places(read):
    X = np.arange(400_000).reshape(-1, 2)
    data = read("".join(f"{a},{a % 7},{b}\n" for a, b in X), target=1)
    np.testing.assert_array_equal(data.train.X, X)
    np.testing.assert_array_equal(data.train.y, X[:, 0] % 7)


@pytest.mark.parametrize("quote", ["", '"'], ids=["plain", "quoted"])
def test_one_long_word_does_not_widen_the_others(read, quote):
    content = "".join(f"{i},w{i % 9}\n" for i in range(2000)) + f"1,{quote}{'a' * 100_000}{quote}\n"
    tracemalloc.start()
    try:
        data = read(content)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    assert [data.classes[label] for label in data.train.y[-3:]] == ["w0", "w1", "a" * 100_000]


@pytest.mark.parametrize("cell", ["1" * 100_000 + "x", "1" * 50_000 + "." + "1" * 50_000 + "x"])
def test_a_long_cell_that_is_nearly_a_number_is_refused_at_once(read, cell):
    started = time.process_time()
    with pytest.raises(FormatError, match="expected a number"):
        read(f"1,2,0\n3,{cell},1\n")
    assert time.process_time() - started < 5


FAULTS = {
    "a quoted cell beyond what csv takes": (
        '1,2,"a"\n3,4,"' + "b" * 200_000 + '"\n',
        "line 2: field larger than field limit",
    ),
    "an empty file": ("", r"table\.csv: is empty, expected rows of numbers"),
    "a file of blank lines": ("\n\n  \n", "is empty"),
    "a header alone": ("a,b,y\n", "holds a header and no rows"),
    "an empty cell": ("a,b,y\n1,2,0\n3,,1\n", r"line 3, column 2 \('b'\) is empty, expected a number: fill"),
    "an empty cell in the first row": ("1,,0\n3,4,1\n", "line 1, column 2 is empty"),
    "an empty target among numbers": ("1,2,0\n3,4,\n", "line 2, column 3 is empty, expected a number"),
    "an empty target among words": ("1,2,a\n3,4,\n", "line 2, column 3 is empty, expected a class"),
    "a word": ("1,2,0\n3,abc,1\n", "line 2, column 2 holds 'abc', expected a number: write the cell"),
    "a very long word": ("1,2,0\n3," + "x" * 99 + ",1\n", r"holds 'x{37}\.\.\.', expected a number"),
    "a word among numbers as targets": ("1,2,0\n3,4,a\n", "column 3 holds 'a', .* write every target"),
    "a number among words as targets": ("1,2,a\n3,4,5\n", "line 2, column 3 holds the number '5'"),
    "a missing value among words": ("1,2,a\n3,4,nan\n", "column 3 holds the number 'nan', expected a word"),
    "NaN": ("1,2,0\n3,NaN,1\n", "line 2, column 2 holds 'NaN', expected a finite number"),
    "infinity": ("1,2,0\n-Infinity,4,1\n", "line 2, column 1 holds '-Infinity', expected a finite"),
    "a number beyond float64": ("1,2,0\n1e999,4,1\n", "line 2, column 1 holds '1e999', expected a finite"),
    "NaN as the target": ("1,2,0\n3,4,nan\n", "line 2, column 3 holds 'nan', expected a finite number"),
    "an underscore": ("1,2,0\n1_0,4,1\n", "line 2, column 1 holds '1_0', expected a number"),
    "digits that are not ASCII": ("1,2,0\n٣,4,1\n", "line 2, column 1 holds '٣', expected a number"),
    "a hexadecimal number": ("1,2,0\n0x1,4,1\n", "line 2, column 1 holds '0x1', expected a number"),
    "a decimal comma": ("1;2,5;0\n3;4,5;1\n", "line 1, column 2 holds '2,5', .* decimal point as a point"),
    "half a header": ("a,2,y\n3,4,1\n", "line 1, column 1 holds 'a', .* pass header=True"),
    "a short row": ("1,2,0\n\n3,1\n", "line 3 has 2 columns, expected 3 as in line 1: look for a missing"),
    "a long row": ("1,2,0\n3,4,1,\n", "line 2 has 4 columns, expected 3 as in line 1"),
    "rows longer than the header": ("a,y\n1,2,0\n3,4,1\n", "line 2 has 3 columns, expected 2 as in line 1"),
    "rows shorter than the header": ("a,b,y\n1,2\n3,4\n", "line 2 has 2 columns, expected 3"),
    "a single column": ("1\n2\n", "has 1 column, which is the target; .* give the delimiter"),
    "a quote that is never closed": (
        '1,2,a\n3,4,"b\n5,6,c\n',
        "line 2: unexpected end of data; .* never closed",
    ),
    "a quote that is closed too early": ('1,2,a\n3,4,"b"c\n', "line 2: "),
    "a fault after a cell of two lines": ('1,2,"a\nb"\n3,,c\n', "line 3, column 2 is empty"),
    "a NUL byte": ("1,2,0\n3,\0,1\n", "line 2, character 3 is the byte 0x00, expected UTF-8 text"),
    "Latin-1": ("1,ä,0\n".encode("latin-1"), "line 1, character 3 is the byte 0xe4, expected UTF-8"),
    "UTF-16": ("1,2,0\n".encode("utf-16"), "line 1, character 1 is the byte 0xf[ef], .*is it UTF-16"),
    "a letter cut in half": ("1,2,é".encode()[:-1], "line 1, character 5 is the byte 0xc3"),
}


@pytest.mark.parametrize(("content", "message"), FAULTS.values(), ids=FAULTS)
def test_a_table_is_refused_for(read, content, message):
    with pytest.raises(FormatError, match=message):
        read(content)


@pytest.mark.parametrize("where", [0, 1, 2**20 - 2, 2**20, 2**21 + 5])
def test_a_byte_that_is_not_text_is_found_wherever_it_lies(read, where):
    content = bytearray(b"1,0\n" * (2**19 + 2**18))
    content[where] = 0xFF
    with pytest.raises(
        FormatError, match=f"line {where // 4 + 1}, character {where % 4 + 1} is the byte 0xff"
    ):
        read(bytes(content))


def test_letters_that_span_two_chunks_are_text(read):
    data = read("0,é\n" + "1,éé\n" * 2**18)
    assert data.classes == ("é", "éé")


ARGUMENTS = {
    "an unknown column": ({"target": "weigth"}, UnknownNameError, "did you mean 'weight'"),
    "a column beyond the last": (
        {"target": 3},
        ArgumentError,
        "column 3, expected -3 to 2, since .* 3 columns",
    ),
    "a column before the first": ({"target": -4}, ArgumentError, "column -4, expected -3 to 2"),
    "half a column": (
        {"target": 1.5},
        ArgumentError,
        "target is 1.5, expected a column's name, index, a list of these, or None",
    ),
    "no column at all": (
        {"target": []},
        ArgumentError,
        "target is an empty list, expected one column or more",
    ),
    "half a column among several": ({"target": [0, 1.5]}, ArgumentError, "target is 1.5, expected"),
    "a list in a list": (
        {"target": [[0]]},
        ArgumentError,
        r"target is \[0\], expected a column's name, index",
    ),
    "bytes": ({"target": b"ab"}, ArgumentError, "target is b'ab', expected a column's name"),
    "a name that comes twice": (
        {"target": ["y", "y"]},
        ArgumentError,
        "names the column 'y' twice, expected each once: leave one out",
    ),
    "a column in two ways": ({"target": [0, -3]}, ArgumentError, "one column twice, as 0 and as -3"),
    "an unknown one of several": ({"target": ["y", "weigth"]}, UnknownNameError, "did you mean 'weight'"),
    "a name among several without a header": (
        {"target": [0, "y"], "header": False},
        ArgumentError,
        "header is False",
    ),
    "every column": ({"target": [2, 1, 0]}, FormatError, "has 3 columns, each of them a target; .* fewer"),
    "a name without a header": ({"target": "y", "header": False}, ArgumentError, "header is False"),
    "a header that is neither": ({"header": "maybe"}, ArgumentError, "expected True, False or 'auto'"),
    "an empty delimiter": ({"delimiter": ""}, ArgumentError, "expected one character"),
    "two delimiters": ({"delimiter": ",;"}, ArgumentError, "expected one character"),
    "a digit as delimiter": ({"delimiter": "1"}, ArgumentError, "expected one character that is no part"),
    "a point as delimiter": ({"delimiter": "."}, ArgumentError, "expected one character that is no part"),
    "a quote as delimiter": ({"delimiter": '"'}, ArgumentError, "expected one character that is no part"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_an_argument_is_refused_for(read, arguments, error, message):
    with pytest.raises(error, match=message):
        read("weight,height,y\n1,2,0\n", **arguments)


def test_a_name_that_two_columns_have_is_refused(read):
    with pytest.raises(FormatError, match="2 columns are called 'y', expected one"):
        read("y,y,a\n1,2,3\n", target="y")


def test_a_missing_file_is_the_plain_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_csv(tmp_path / "nowhere.csv")


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)


@given(
    rows=st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(NUMBERS, min_size=width, max_size=width), min_size=1, max_size=8)
    ),
    delimiter=st.sampled_from(",;\t|"),
)
def test_numbers_come_back_exactly(tmp_path_factory, rows, delimiter):
    path = tmp_path_factory.mktemp("exact") / "numbers.csv"
    path.write_text("".join(delimiter.join(map(repr, row)) + "\n" for row in rows))
    data = read_csv(path, target=None, delimiter=delimiter, header=False)
    np.testing.assert_array_equal(data.train.X, np.array(rows, dtype=np.float64))


CELLS = st.sampled_from(
    [
        "1",
        " 2",
        "-3.5 ",
        "1e5",
        "1e",
        ".",
        "+.5",
        "",
        " ",
        "a",
        "é b",
        "nan",
        "inf",
        "1_0",
        "٣",
        "0x1",
        "1e999",
        "#",
        "'",
    ]
)
ROWS = st.lists(CELLS, min_size=1, max_size=3).map(",".join)
TEXTS = st.tuples(ROWS, st.lists(ROWS, max_size=4), st.sampled_from(["\n", "\r\n", "\r"])).map(
    lambda parts: parts[2].join([parts[0], *parts[1]])
)


@given(
    text=TEXTS,
    target=st.sampled_from([None, 0, -1, [0], [-1, 0]]),
    header=st.sampled_from([True, False, "auto"]),
)
def test_what_the_fast_parser_accepts_the_careful_one_reads_alike(tmp_path_factory, text, target, header):
    path = tmp_path_factory.mktemp("alike") / "table.csv"
    path.write_bytes(text.encode())
    try:
        layout = table._layout(str(path), target, ",", header)
    except (FormatError, ArgumentError):
        # The first and the last column may be one.
        return
    fast = table._parse_fast(layout)
    if fast is not None:
        X, y, words = table._parse_slow(layout)
        assert (fast[2] is None) == (words is None)
        np.testing.assert_array_equal(fast[0], X)
        assert (fast[1] is None) == (y is None)
        if words is not None:
            assert [fast[2][code] for code in fast[1]] == [words[code] for code in y]
        elif y is not None:
            np.testing.assert_array_equal(fast[1], y)
            assert (fast[1].dtype.kind, fast[1].shape) == (y.dtype.kind, y.shape)


def read_or_refuse(read, content: bytes, **arguments) -> Dataset | FormatError:
    try:
        return read(content, **arguments)
    except FormatError as error:
        return error


MUTATED = {
    "numbers": b"\xef\xbb\xbfa,b,y\n1,2.5,0\n-3e2,4,1\n5,6,2\n7,8,0\n",
    "words": 'a;b;y\n1;2.5;"ä"\n-3e2;4;b c\n5;6;"d;e"\n'.encode(),
}


@pytest.mark.parametrize("seed", range(200))
@pytest.mark.parametrize(
    ("content", "target"),
    [*((content, -1) for content in MUTATED.values()), (MUTATED["numbers"], [-1])],
    ids=[*MUTATED, "several targets"],
)
def test_a_mutated_table_gives_finite_numbers_or_a_format_error(read, content, target, seed):
    chance = random.Random(seed)
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(damaged) + 1)
        piece = chance.choice(
            [b"", b",", b";", b"\n", b'"', b"\0", b"\r", b"1", b"x", chance.randbytes(chance.randint(1, 4))]
        )
        damaged[start : start + chance.choice([0, 1, len(piece), 10])] = piece
    result = read_or_refuse(read, bytes(damaged), target=target)
    if isinstance(result, FormatError):
        assert "table.csv: " in str(result)
    else:
        assert np.isfinite(result.train.X).all()
        assert np.isfinite(result.train.y).all()
        assert len(result.train.X) == len(result.train.y) >= 1


def test_the_features_have_the_names_of_the_header(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('a,"b, c",d\n1,2,3\n4,5,6\n')
    assert read_csv(path).feature_names == ("a", "b, c")
    assert read_csv(path, target=["d", "a"]).feature_names == ("b, c",)
    assert read_csv(path, target=None).feature_names == ("a", "b, c", "d")
    divided = load(path, target="a", test_fraction=0.5)
    assert divided.feature_names == ("b, c", "d")
    path.write_text("1,2,3\n4,5,6\n")
    assert read_csv(path).feature_names is None
