"""What a run leaves behind: records, tables, COCO, maps, HTML."""
