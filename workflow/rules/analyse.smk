rule collect:
    input:
        episodes=of_all_cells("<runs>/{cell}/seed-{seed}/episodes.parquet"),
        epochs=of_all_cells("<runs>/{cell}/seed-{seed}/epochs.parquet"),
        learning=of_all_cells("<runs>/{cell}/seed-{seed}/learning.parquet"),
        code=code("collect"),
    output:
        tables=expand(
            "<results>/{name}.parquet",
            name=("episodes", "epochs", "learning"),
            allow_missing=True,
        ),
        seal="<results>/seals/collect.sha256",
    log:
        "<results>/logs/collect.log",
    conda:
        "../../environment.yml"
    params:
        suite=PLAN.suite,
        data=PLAN.data,
        results=lambda wildcards, output: Path(output.seal).parents[1],
    shell:
        "(marlin plan set-aside {params.suite} --data {params.data}"
        " && python -m marlin.analysis.collect {params.results}"
        " && python -m marlin.seal {output.seal} {output.tables}) > {log} 2>&1"


# Of a suite without marlin_nash, an empty table.
rule agreement:
    input:
        record=expand("{folder}/run.json", folder=BARGAINED),
        policy=ancient(expand("{folder}/policy.npz", folder=BARGAINED)),
        code=code("agreement"),
    output:
        agreement="<results>/agreement.parquet",
        seal="<results>/seals/agreement.sha256",
    log:
        "<results>/logs/agreement.log",
    conda:
        "../../environment.yml"
    params:
        folders=BARGAINED,
    shell:
        "(python -m marlin.agreement {params.folders} --output {output.agreement}"
        " && python -m marlin.seal {output.seal} {output.agreement}) > {log} 2>&1"


rule tables:
    input:
        runs=rules.collect.output.tables,
        agreement="<results>/agreement.parquet",
        profiles="<results>/serving/profiles.parquet",
        silicon="<results>/serving/silicon.parquet",
        power="<results>/serving/power.csv",
        fluid="<results>/serving/fluid.csv",
        bounds=BOUND_FILES,
        data_sources=expand(
            "<results>/data/{stem}.sources.json",
            stem=PLAN.scenarios,
            allow_missing=True,
        ),
        evaluated=of_all_cells("<runs>/{cell}/seed-{seed}/evaluated.yaml"),
        code=code("tables"),
    output:
        tables=expand(
            "<results>/tables/{name}.{kind}",
            name=TABLES,
            kind=("csv", "json", "tex"),
            allow_missing=True,
        ),
        numbers="<results>/numbers.json",
        seal="<results>/seals/tables.sha256",
    log:
        "<results>/logs/tables.log",
    conda:
        "../../environment.yml"
    params:
        results=lambda wildcards, output: Path(output.seal).parents[1],
    shell:
        "(python -m marlin.analysis.tables {params.results}"
        " && python -m marlin.seal {output.seal} {output.tables} {output.numbers}) > {log} 2>&1"


rule figures:
    input:
        runs=rules.collect.output.tables,
        profiles="<results>/serving/profiles.parquet",
        silicon="<results>/serving/silicon.parquet",
        power="<results>/serving/power.csv",
        code=code("figures"),
    output:
        figures=expand(
            "<results>/figures/{name}.{kind}",
            name=FIGURES,
            kind=("pdf", "png", "svg"),
            allow_missing=True,
        ),
        seal="<results>/seals/figures.sha256",
    log:
        "<results>/logs/figures.log",
    conda:
        "../../environment.yml"
    params:
        results=lambda wildcards, output: Path(output.seal).parents[1],
    shell:
        "(python -m marlin.analysis.figures {params.results}"
        " && python -m marlin.seal {output.seal} {output.figures}) > {log} 2>&1"
