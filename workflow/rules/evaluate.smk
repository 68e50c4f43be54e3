rule evaluate:
    input:
        scenario=scenario_of,
        scenario_digest=scenario_digest_of,
        profiles=profiles_of,
        # The record holds the digests of policy and settings, which may be big.
        record=rules.train.output.record,
        policy=ancient(rules.train.output.policy),
        code=evaluation_code_of,
    output:
        episodes=of_all_seeds("episodes.parquet"),
        epochs=of_all_seeds("epochs.parquet"),
        seal="<results>/seals/evaluate/<cell>.sha256",
    log:
        "<results>/logs/evaluate/<cell>.log",
    benchmark:
        "<results>/benchmarks/evaluate/<cell>.tsv"
    conda:
        "../../environment.yml"
    params:
        folders=lambda wildcards, input: [Path(path).parent for path in input.record],
    shell:
        "(python -m marlin.evaluate {params.folders}"
        " --scenario {input.scenario} --profiles {input.profiles}"
        " && python -m marlin.seal {output.seal} {output.episodes} {output.epochs}) > {log} 2>&1"
