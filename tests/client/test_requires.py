"""Files that a file requires: found beside it or in FLOWMETAL_PATH, loaded in order, circles told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from stores import Stores

import flowmetal
from flowmetal.client.requires import required_files
from flowmetal.errors import SourceError


def put(folder: Path, **files: str) -> None:
    """Writes files, named with __ for a folder."""
    for name, text in files.items():
        path = folder.joinpath(*f"{name}.flow".split("__"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    put(
        tmp_path,
        main="(ns main.app (:require [orders.core :as oc] [clojure.string :as s]))\n(defflow run-it [x] (s/join [(oc/total x)]))",
        orders__core="(ns orders.core (:require [orders.util :as u] [orders.other]))\n(defn total [x] (u/twice (u/twice x)))",
        orders__util="(ns orders.util)\n(defn twice [x] (* 2 x))",
        orders__other="(ns orders.other (:require [orders.util :as u]))\n(def four (u/twice 2))",
    )
    return tmp_path


def names(source: str, file: Path) -> list[str]:
    return [path.stem for path, _ in required_files(source, str(file))]


def test_files_are_loaded_after_what_they_need(stores: Stores, project: Path) -> None:
    main = project / "main.flow"
    assert names(main.read_text(), main) == ["util", "other", "core"]
    with flowmetal.open(stores.quick_at().url) as fm:
        fm.load(str(main))
        assert fm.start("main.app/run-it", 3).result(timeout=30) == "12"


def test_a_file_of_a_namespace_finds_its_sisters(project: Path) -> None:
    core = project / "orders" / "core.flow"
    assert names(core.read_text(), core) == ["util", "other"]


def test_evaluated_text_requires_from_the_path(
    stores: Stores, project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("FLOWMETAL_PATH", f"/nowhere:{project}")
    with flowmetal.open(stores.quick_at().url) as fm:
        assert fm.eval("(require '[orders.core :as c]) (c/total 1)") == 4


def test_a_name_with_a_dash_may_be_a_file_with_a_line(tmp_path: Path) -> None:
    put(tmp_path, my_lib="(ns my-lib)")
    assert names("(require 'my-lib)", tmp_path / "x.flow") == []
    put(tmp_path, x="")
    assert names("(require 'my-lib)", tmp_path / "x.flow") == ["my_lib"]


def test_a_circle_is_told(tmp_path: Path) -> None:
    put(tmp_path, a="(ns a (:require [b]))", b="(ns b (:require [c]))", c="(ns c\n  (:require [a]))")
    with pytest.raises(SourceError, match="in a circle: a → b → c → a") as caught:
        required_files((tmp_path / "a.flow").read_text(), str(tmp_path / "a.flow"))
    assert caught.value.span is not None
    assert caught.value.span.line == 2


def test_what_is_in_no_file_is_for_the_store_to_know(stores: Stores) -> None:
    async def go() -> None:
        async with flowmetal.open_async(stores.quick_at().url) as fm:
            with pytest.raises(flowmetal.FlowmetalError, match=r"there is no namespace no\.where; its file would be no/where\.flow"):
                await fm.eval("(require 'no.where)")
            await fm.eval("(ns no.where) (def x 1) (ns user)")
            assert await fm.eval("(require '[no.where :as w]) w/x") == 1

    asyncio.run(go())
