# One process trains all seeds of a cell: importing the learning stack costs more than a short run.


rule train:
    input:
        scenario=scenario_of,
        scenario_digest=scenario_digest_of,
        profiles=profiles_of,
        code=training_code_of,
    output:
        resolved=of_all_seeds("resolved.yaml"),
        record=of_all_seeds("run.json"),
        learning=of_all_seeds("learning.parquet"),
        policy=of_all_seeds("policy.npz"),
        seal="<results>/seals/train/<cell>.sha256",
    log:
        "<results>/logs/train/<cell>.log",
    benchmark:
        "<results>/benchmarks/train/<cell>.tsv"
    # The longest jobs of a suite are among these: they start before what depends on short ones.
    priority: 10
    conda:
        "../../environment.yml"
    params:
        config=lambda wildcards: cell_of(wildcards).fingerprint,
        overrides=lambda wildcards: shlex.join(cell_of(wildcards).overrides),
        seeds=",".join(str(seed) for seed in SEEDS),
        folder=run_folder_of,
    shell:
        "(python -m marlin.train -m {params.overrides} seed={params.seeds}"
        " inputs.scenario={input.scenario} inputs.profiles={input.profiles}"
        " hydra.sweep.dir={params.folder}"
        " && python -m marlin.seal {output.seal} {output.resolved} {output.record}"
        " {output.learning} {output.policy}) > {log} 2>&1"
