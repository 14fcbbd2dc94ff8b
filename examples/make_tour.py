"""Make tour.ipynb from the first three examples, without outputs: python examples/make_tour.py."""

import ast
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

HERE = Path(__file__).parent
PARTS = "first_picture", "own_field", "gradient"


def tour() -> NotebookNode:
    """Return the notebook: for each example its docstring, its code, and the picture that it writes."""
    cells = [new_markdown_cell("# A tour of warpdvr\n\nMade from the first three examples by `examples/make_tour.py`.")]
    for name in PARTS:
        source = (HERE / f"{name}.py").read_text()
        body = ast.parse(source).body
        code = "\n".join(source.splitlines()[body[1].lineno - 1 : body[-1].lineno - 1]).strip()
        title, _, text = (ast.get_docstring(ast.parse(source)) or "").partition("\n")
        cells += [
            new_markdown_cell(f"## {title}\n{text}".strip()),
            new_code_cell(code),
            new_code_cell(f'main(Path("{name}.png"))\nPIL.Image.open("{name}.png")'),
        ]
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i}"  # instead of a random one, so that the file changes only with the examples
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


if __name__ == "__main__":
    nbformat.write(tour(), HERE / "tour.ipynb")
