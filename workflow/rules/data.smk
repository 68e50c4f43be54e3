# Measured data come through the cache, verified; embedded data lie in the package.


rule fetch:
    input:
        code=code("fetch"),
    output:
        "<results>/data/fetched.json",
    log:
        "<results>/logs/fetch.log",
    conda:
        "../../environment.yml"
    shell:
        "marlin fetch --receipt {output} > {log} 2>&1"


rule prepare:
    input:
        fetched,
        code=code("prepare"),
    output:
        scenario="<results>/data/{stem}.nc",
        digest="<results>/data/{stem}.nc.sha256",
        data_sources="<results>/data/{stem}.sources.json",
        seal="<results>/seals/prepare/{stem}.sha256",
    log:
        "<results>/logs/prepare/{stem}.log",
    conda:
        "../../environment.yml"
    params:
        config=lambda wildcards: PLAN.scenarios[wildcards.stem].fingerprint,
        overrides=lambda wildcards: product_settings(PLAN.scenarios[wildcards.stem]),
    shell:
        "(marlin prepare {params.overrides} --output {output.scenario}"
        " && python -m marlin.seal {output.seal} {output.scenario} {output.digest}"
        " {output.data_sources}) > {log} 2>&1"
