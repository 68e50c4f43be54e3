# One process trains all seeds of a cell: importing the learning stack costs more than a short run.


rule train:
    input:
        scenario=scenario_of,
        scenario_digest=scenario_digest_of,
        profiles=profiles_of,
        code=training_code_of,
    output:
        resolved=of_seeds(SEEDS, "resolved.yaml"),
        record=of_seeds(SEEDS, "run.json"),
        learning=of_seeds(SEEDS, "learning.parquet"),
        policy=of_seeds(SEEDS, "policy.npz"),
        seal="<results>/seals/train/{cell}.sha256",
    log:
        "<results>/logs/train/{cell}.log",
    benchmark:
        "<results>/benchmarks/train/{cell}.tsv"
    wildcard_constraints:
        cell=one_of(MANY_SEEDS),
    # The longest jobs of a suite are among these: they start before what depends on short ones.
    priority: 10
    conda:
        "../../environment.yml"
    params:
        config=lambda wildcards: cell_of(wildcards).training_fingerprint,
        overrides=lambda wildcards: shlex.join(
            compose.training_overrides(cell_of(wildcards).overrides)
        ),
        seeds=lambda wildcards: ",".join(map(str, cell_of(wildcards).seeds)),
        folder=run_folder_of,
    shell:
        "(python -m marlin.train -m {params.overrides} seed={params.seeds}"
        " inputs.scenario={input.scenario} inputs.profiles={input.profiles}"
        " hydra.sweep.dir={params.folder}"
        " && python -m marlin.seal {output.seal} {output.resolved} {output.record}"
        " {output.learning} {output.policy}) > {log} 2>&1"


use rule train as train_once with:
    output:
        resolved=of_seeds(SEEDS[:1], "resolved.yaml"),
        record=of_seeds(SEEDS[:1], "run.json"),
        learning=of_seeds(SEEDS[:1], "learning.parquet"),
        policy=of_seeds(SEEDS[:1], "policy.npz"),
        seal="<results>/seals/train/{cell}.sha256",
    wildcard_constraints:
        cell=one_of(ONE_SEED),
