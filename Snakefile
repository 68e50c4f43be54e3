include: "workflow/Snakefile"


# An include does not hand on its default target.
workflow.default_target = "all"
