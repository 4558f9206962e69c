"""The tasks: what each one's columns, labels, metrics and files are, and how they are read."""

from finetune.tasks.load import DataFlags, load_task, read_split
from finetune.tasks.split import Split, TaskData
from finetune.tasks.table import GLUE, TASKS, File, Hub, Task, find_task

__all__ = [
    "GLUE",
    "TASKS",
    "DataFlags",
    "File",
    "Hub",
    "Split",
    "Task",
    "TaskData",
    "find_task",
    "load_task",
    "read_split",
]
