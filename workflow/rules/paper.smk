rule paper:
    input:
        tables=rules.tables.output.tables,
        numbers=rules.tables.output.numbers,
        figures=rules.figures.output.figures,
        text=sorted(str(path) for path in Path("paper").glob("*.*")),
        code=code("paper"),
    output:
        paper="<results>/paper.pdf",
        seal="<results>/seals/paper.sha256",
    log:
        "<results>/logs/paper.log",
    conda:
        "../../environment.yml"
    params:
        results=lambda wildcards, output: Path(output.seal).parents[1],
    shell:
        "(python -m marlin.paper {params.results}"
        " && python -m marlin.seal {output.seal} {output.paper}) > {log} 2>&1"


# Snakemake does not notice a result that was edited by hand: the seals do.
rule verify:
    input:
        expand(
            "<results>/seals/prepare/{stem}.sha256",
            stem=PLAN.scenarios,
            allow_missing=True,
        ),
        expand(
            "<results>/seals/calibrate/{stem}.sha256",
            stem=PLAN.profiles,
            allow_missing=True,
        ),
        expand(
            "<results>/seals/bounds/{stem}.sha256",
            stem=PLAN.bounds,
            allow_missing=True,
        ),
        expand(
            "<results>/seals/{stage}/{cell}.sha256",
            stage=("train", "evaluate"),
            cell=CELLS,
            allow_missing=True,
        ),
        rules.collect.output.seal,
        rules.agreement.output.seal,
        rules.tables.output.seal,
        rules.figures.output.seal,
        rules.paper.output.seal,
    output:
        "<results>/manifest.json",
    log:
        "<results>/logs/verify.log",
    conda:
        "../../environment.yml"
    params:
        plan=PLAN.fingerprint,
        suite=PLAN.suite,
        data=PLAN.data,
    shell:
        "marlin plan verify {params.suite} --data {params.data} --manifest > {log} 2>&1"
