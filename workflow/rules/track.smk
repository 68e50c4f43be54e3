# An export, not a result: offline runs that `wandb sync` may send later. Outside the manifest.


rule track:
    input:
        records=of_all_cells("<runs>/{cell}/seed-{seed}/run.json"),
        episodes=of_all_cells("<runs>/{cell}/seed-{seed}/episodes.parquet"),
        learning=of_all_cells("<runs>/{cell}/seed-{seed}/learning.parquet"),
        seal=rules.collect.output.seal,
        code=code("track"),
    output:
        "<results>/wandb/index.json",
    log:
        "<results>/logs/track.log",
    conda:
        "../../environment.yml"
    params:
        results=lambda wildcards, output: Path(output[0]).parents[1],
    shell:
        "python -m marlin.tracking.wandb_export {params.results} > {log} 2>&1"
