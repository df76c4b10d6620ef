"""Pictures: predictions as contact sheets, a run's figures, and the page that shows them.

`classification`, `detection` and `segmentation` draw with Pillow alone (figures import matplotlib when called), on a
`card` each; `objects` are what `detection` draws on a picture, `regions` what `segmentation` does. `curves`,
`precision_recall` and `confusion` are figures; `page` writes one self-contained HTML file; `style` holds the colours
and fonts that all of them share.
"""
