"""Data sets of other formats become manifests: one file per format."""

FORMATS = (
    *("richhf", "expl_aigi_eval", "abhuman", "fakexplain", "coco", "labelme", "xaigd_boxes"),
    *("fakeclue", "synthscars", "folder", "demo"),
)
