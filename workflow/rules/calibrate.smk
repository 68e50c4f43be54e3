rule calibrate:
    input:
        code=code("calibrate"),
    output:
        profiles="<results>/serving/profiles{variant}.parquet",
        silicon="<results>/serving/silicon{variant}.parquet",
        seal="<results>/seals/calibrate/profiles{variant}.sha256",
    log:
        "<results>/logs/calibrate/profiles{variant}.log",
    wildcard_constraints:
        variant=r"(-[\w.-]+)?",
    conda:
        "../../environment.yml"
    params:
        config=lambda wildcards: PLAN.profiles[
            f"profiles{wildcards.variant}"
        ].fingerprint,
        overrides=lambda wildcards: product_settings(
            PLAN.profiles[f"profiles{wildcards.variant}"]
        ),
    shell:
        "(marlin calibrate {params.overrides} --output {output.profiles}"
        " && python -m marlin.seal {output.seal} {output.profiles} {output.silicon})"
        " > {log} 2>&1"
