#!/usr/bin/env bash
# Makes the book of docs/ with mdbook and follows every link of its pages: to a page, to a heading, to a
# picture. Links to other hosts are left alone. Fails with the list of those that lead nowhere.
#
#   interop/book.sh [FOLDER]   writes the book there, by default to docs/book
#
# `interop/setup.sh book` installs mdbook.
set -euo pipefail
folder=$(realpath -m "${1:-$(dirname "$0")/../docs/book}")
cd "$(dirname "$0")/.."
export PATH="/opt/interop/book/bin:$PATH"
command -v mdbook > /dev/null || { echo "book: mdbook is missing: interop/setup.sh book" >&2; exit 1; }
mdbook build docs --dest-dir "$folder"
exec python3 - "$folder" << 'PYTHON'
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# The same pages once more on one, with links as they are on each.
PRINT = "print.html"


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids.update(filter(None, [given.get("id"), given.get("name")]))
        self.links += filter(None, [given.get("href"), given.get("src")])


book = Path(sys.argv[1])
pages = {path: Page(path) for path in sorted(book.rglob("*.html")) if path.name not in (PRINT, "404.html", "toc.html")}
followed, broken = 0, []
for path, page in pages.items():
    for link in page.links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        followed += 1
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        headings = pages[target].ids if target in pages else set()
        if not target.is_file() or parts.fragment and unquote(parts.fragment) not in headings:
            broken.append(f"{path.relative_to(book)}: {link}")
print(f"book: {len(pages)} pages, {followed} links")
if len(pages) < 10 or broken:
    sys.exit("book: these lead nowhere:\n" + "\n".join(broken))
PYTHON
