rule bounds:
    input:
        scenario=scenario_of,
        scenario_digest=scenario_digest_of,
        profiles=profiles_of,
        code=code("bounds"),
    output:
        bounds="<results>/bounds/{stem}.parquet",
        seal="<results>/seals/bounds/{stem}.sha256",
    log:
        "<results>/logs/bounds/{stem}.log",
    benchmark:
        "<results>/benchmarks/bounds/{stem}.tsv"
    conda:
        "../../environment.yml"
    params:
        config=lambda wildcards: PLAN.bounds[wildcards.stem].fingerprint,
        overrides=lambda wildcards: product_settings(PLAN.bounds[wildcards.stem]),
    shell:
        "(python -m marlin.bounds {params.overrides} --output {output.bounds}"
        " --scenario {input.scenario} --profiles {input.profiles}"
        " && python -m marlin.seal {output.seal} {output.bounds}) > {log} 2>&1"
