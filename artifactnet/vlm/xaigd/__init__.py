"""Language models on X-AIGD (X-AIGD, App. C): presence, judgment, boxes with categories, masks."""
