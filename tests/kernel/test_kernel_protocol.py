"""The kernel as Jupyter's own test suite for kernels sees it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import ClassVar

import jupyter_kernel_test
from jupyter_client.kernelspec import KernelSpecManager
from kernel_driver import Notebook
from processes import end_host, store_at


class TestProtocol(jupyter_kernel_test.KernelTests):
    """`jupyter_kernel_test`, with what it asks for said in Flowmetal."""

    kernel_name = "flowmetal"
    language_name = "flowmetal"
    file_extension = ".flow"
    code_hello_world = '(println "hello, world")'
    code_stderr = "%%python\nimport sys; print('test', file=sys.stderr)"
    completion_samples: ClassVar = [{"text": "(random-uu", "matches": ["random-uuid"]}, {"text": "%sto", "matches": ["%store"]}]
    complete_code_samples: ClassVar = ["(+ 1 2)", "x", '(str "(")', "%flows", "; a remark", "(a) (b)"]
    incomplete_code_samples: ClassVar = ["(+ 1", '(str "never', "[1 2", "(let [x 1]\n  x", "'"]
    invalid_code_samples: ClassVar = ["(]", "(+ 1 2))"]
    code_generate_error = "(/ 1 0)"
    code_execute_result: ClassVar = [
        {"code": "(+ 1 2)", "result": "3"},
        {"code": '{:a [1 2] :b "x"}', "result": '{:a [1 2], :b "x"}'},
        {"code": "(str 1.5 :k nil)", "result": '"1.5:k"'},
    ]
    code_display_data: ClassVar = [{"code": "%%sql SELECT 1 AS one", "mime": "text/html"}, {"code": "%help", "mime": "text/markdown"}]
    code_history_pattern = "(+ 1*"
    code_inspect_sample = "(random-uuid"
    code_page_something = "%pinfo len"
    code_clear_output = "%%python\nfrom IPython.display import clear_output; clear_output()"

    @classmethod
    def setUpClass(cls) -> None:
        """A kernel on a store of its own."""
        cls.folder = tempfile.TemporaryDirectory(prefix="flowmetal-kernel-", ignore_cleanup_errors=True)
        cls.notebook = Notebook(Path(cls.folder.name), store_at(Path(cls.folder.name, "flowmetal.duckdb")))
        cls.km, cls.kc = cls.notebook.kernel, cls.notebook.client
        cls.notebook.run("nil")

    @classmethod
    def tearDownClass(cls) -> None:
        """Ends what `setUpClass` began."""
        cls.notebook.kill()
        end_host(cls.notebook.store)
        cls.folder.cleanup()

    def test_history(self) -> None:
        """By `tail` and by `search`; by `range` IPython itself counts sessions otherwise than the suite does."""
        codes = [sample["code"] for sample in self.code_execute_result]
        reply = self.history_helper(codes, output=False, raw=True, hist_access_type="tail", n=len(codes))
        self.assertEqual(codes, [entry[2] for entry in reply["content"]["history"]])
        reply = self.history_helper(codes, output=False, raw=True, hist_access_type="search", pattern=self.code_history_pattern, unique=True)
        self.assertEqual(["(+ 1 2)"], [entry[2] for entry in reply["content"]["history"]])


def test_jupyter_lists_the_kernel() -> None:
    spec = KernelSpecManager().get_kernel_spec("flowmetal")
    assert (spec.display_name, spec.language, spec.interrupt_mode) == ("Flowmetal", "flowmetal", "signal")
    assert "-m" in spec.argv and "flowmetal_kernel" in spec.argv
    assert sorted(path.name for path in Path(spec.resource_dir).glob("logo-*")) == ["logo-32x32.png", "logo-64x64.png", "logo-svg.svg"]
