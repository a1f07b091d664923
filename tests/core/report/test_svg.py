"""Drawing with matplotlib, as the page of a comparison does, leaves matplotlib as it was."""

import subprocess
import sys


def test_drawing_leaves_matplotlib_as_it_was():
    code = (
        "import sys, matplotlib as mpl;"
        "from selectmoe_core.report.svg import drawing, new_figure, to_svg;"
        "names = set(mpl.rcParams) - {'backend'};"
        "before = {name: mpl.rcParams[name] for name in names}\n"
        "with drawing():\n"
        "    figure = new_figure(2); figure.subplots().plot([1, 2])\n"
        "    text = to_svg(figure, '<a>', 'p')\n"
        "same = {n: mpl.rcParams[n] for n in names} == before;"
        "print('matplotlib.pyplot' in sys.modules, same, '#01010' in text, '&lt;a&gt;' in text)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False", "True"]
