rule evaluate:
    input:
        scenario=scenario_of,
        scenario_digest=scenario_digest_of,
        profiles=profiles_of,
        # The record holds the digests of policy and settings, which may be big.
        record=of_runs("run.json"),
        policy=lambda wildcards: ancient(of_runs("policy.npz")(wildcards)),
        code=evaluation_code_of,
    output:
        episodes=of_seeds(SEEDS, "episodes.parquet"),
        epochs=of_seeds(SEEDS, "epochs.parquet"),
        settings=of_seeds(SEEDS, "evaluated.yaml"),
        record=of_seeds(SEEDS, "evaluation.json"),
        seal="<results>/seals/evaluate/{cell}.sha256",
    log:
        "<results>/logs/evaluate/{cell}.log",
    benchmark:
        "<results>/benchmarks/evaluate/{cell}.tsv"
    wildcard_constraints:
        cell=one_of(MANY_SEEDS),
    conda:
        "../../environment.yml"
    params:
        config=lambda wildcards: cell_of(wildcards).fingerprint,
        overrides=lambda wildcards: shlex.join(cell_of(wildcards).overrides),
        folders=run_folders_of,
    shell:
        "(python -m marlin.evaluate {params.folders}"
        " --scenario {input.scenario} --profiles {input.profiles}"
        " --settings {params.overrides}"
        " && python -m marlin.seal {output.seal} {output.episodes} {output.epochs}"
        " {output.settings} {output.record}) > {log} 2>&1"


use rule evaluate as evaluate_once with:
    output:
        episodes=of_seeds(SEEDS[:1], "episodes.parquet"),
        epochs=of_seeds(SEEDS[:1], "epochs.parquet"),
        settings=of_seeds(SEEDS[:1], "evaluated.yaml"),
        record=of_seeds(SEEDS[:1], "evaluation.json"),
        seal="<results>/seals/evaluate/{cell}.sha256",
    wildcard_constraints:
        cell=one_of(ONE_SEED),
