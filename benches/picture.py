#!/usr/bin/env python3
"""Draws docs/src/images/comparison.svg from the table of measurements in benches/README.md.

    benches/picture.py            writes the picture
    benches/picture.py --check    fails if the picture is not that of the table
"""

import re
import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs/src/images/comparison.svg"
DAEMONS = ["margay", "BIRD 2", "FRR", "OpenBGPD"]
# Beginnings of the rows that are drawn, and what each is called in the picture.
ROWS = {
    "`table --runs 3`": "A full table: 1,000,000 prefixes from one neighbour to another",
    "`reflect` (10": "A reflector: 10 × 20,000 prefixes to 30 clients",
    "`k8s` (1,000": "A cluster: 1,000 nodes × 3 blocks, all to all",
    "`join` (200,000)": "A neighbour joins: 200,000 prefixes to it",
}
WIDTH, LABEL, BAR, GAP, HEAD = 760, 90, 18, 5, 34
FIGURE = 190


def measurements():
    """Title and {daemon: (seconds, memory)} of each row."""
    lines = (ROOT / "benches/README.md").read_text().splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("| arguments | floor"))
    columns = [cell.strip() for cell in lines[head].strip("|").split("|")]
    for start, title in ROWS.items():
        row = next(line for line in lines[head:] if line.startswith(f"| {start}"))
        cells = dict(zip(columns, (cell.strip() for cell in row.strip("|").split("|"))))
        found = {}
        for daemon in DAEMONS:
            seconds = re.match(r"([0-9.]+)", cells[daemon])
            memory = re.search(r"([0-9,]+) MB", cells[daemon])
            if seconds:
                found[daemon] = (float(seconds[1]), memory and memory[1] + " MB")
        yield title, found


def picture():
    out, y = [], 8
    for title, found in measurements():
        longest = max(seconds for seconds, _ in found.values())
        y += 14
        out.append(f'<text class="title" x="0" y="{y}">{escape(title)}</text>')
        y += 10
        for daemon, (seconds, memory) in found.items():
            width = max(2.0, seconds / longest * (WIDTH - LABEL - FIGURE))
            kind = "ours" if daemon == "margay" else "other"
            figure = f"{seconds:g} s" + (f", {memory}" if memory else "")
            out.append(f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end">{daemon}</text>')
            out.append(f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>')
            out.append(f'<text class="figure" x="{LABEL + width + 8:.1f}" y="{y + 13}">{figure}</text>')
            y += BAR + GAP
        y += HEAD - BAR - GAP
    style = (
        "text{font:13px system-ui,sans-serif;fill:#333}.title{font-weight:600}"
        ".figure{font-variant-numeric:tabular-nums}.ours{fill:#0b7285}.other{fill:#adb5bd}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}.ours{fill:#3bc9db}.other{fill:#5c636a}}"
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img" '
        'aria-label="Seconds and peak memory of margay, BIRD 2, FRR and OpenBGPD in four scenarios">'
    )
    return "\n".join([head, f"<style>{style}</style>", *out, "</svg>", ""])


def main():
    drawn = picture()
    if "--check" in sys.argv[1:]:
        if PICTURE.read_text() != drawn:
            sys.exit("docs/src/images/comparison.svg is not what benches/README.md says: run benches/picture.py")
        return
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(drawn)


if __name__ == "__main__":
    main()
