"""Pictures: predictions as contact sheets, a run's figures and page, and where a network looks.

Functions that end in ``_figure`` return a matplotlib figure, and import matplotlib when called; those that begin with
``draw_`` return a Pillow image.

`classification`, `detection` and `segmentation` draw predictions, on a `card` each; `objects` are what `detection`
draws on a picture, `regions` what `segmentation` does. `curves`, `precision_recall` and `confusion` are figures of a
run, `evaluation` holds what they are drawn from; `page` writes one self-contained HTML file. In `looks`, `sampling` and
`reach` show where DCNv3 looks, `activation`, `features` and `receptive_field` what a network makes of an image,
`overlay` what they share. `robustness` shows what changes of pictures do to networks; `style` holds the colours and
fonts of all.
"""

from internimage.visualization.classification import confusion_matrix_figure, draw_predictions
from internimage.visualization.curves import curves_figure
from internimage.visualization.looks.activation import activation_figure
from internimage.visualization.looks.features import features_figure
from internimage.visualization.looks.reach import entropy_figure, reach_figure
from internimage.visualization.looks.receptive_field import receptive_field_figure
from internimage.visualization.looks.sampling import draw_points, flow_figure, sampling_figure
from internimage.visualization.robustness import robustness_figure

__all__ = [
    "activation_figure",
    "confusion_matrix_figure",
    "curves_figure",
    "draw_points",
    "draw_predictions",
    "entropy_figure",
    "features_figure",
    "flow_figure",
    "reach_figure",
    "receptive_field_figure",
    "robustness_figure",
    "sampling_figure",
]
