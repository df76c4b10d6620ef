"""Pictures: predictions as contact sheets, a run's figures, and the page that shows them.

`classification` draws with Pillow alone (its two figures import matplotlib when called); `page` writes one
self-contained HTML file; `style` holds the colours and fonts that all of them share.
"""
