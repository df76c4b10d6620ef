"""Pictures: predictions as contact sheets, a run's figures, and the page that shows them.

`classification` and `detection` draw with Pillow alone (figures import matplotlib when called), on a `card` each;
`objects` are what `detection` draws on a picture. `curves` and `precision_recall` are figures; `page` writes one
self-contained HTML file; `style` holds the colours and fonts that all of them share.
"""
