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
        "(marlin calibrate {params.overrides} --no-figure --output {output.profiles}"
        " && python -m marlin.seal {output.seal} {output.profiles} {output.silicon})"
        " > {log} 2>&1"


# The package carries the table; measured data at hand make it anew.
rule power:
    input:
        code=code("power"),
    output:
        power="<results>/serving/power.csv",
        seal="<results>/seals/power.sha256",
    log:
        "<results>/logs/power.log",
    conda:
        "../../environment.yml"
    params:
        mirror=mirror_option(),
    shell:
        "(python -m marlin.serving.power_validation {params.mirror} --output {output.power}"
        " && python -m marlin.seal {output.seal} {output.power}) > {log} 2>&1"


# Settings of the first cell: ablations of serving have no table of their own.
rule fluid:
    input:
        profiles="<results>/serving/profiles.parquet",
        code=code("fluid"),
    output:
        fluid="<results>/serving/fluid.csv",
        seal="<results>/seals/fluid.sha256",
    log:
        "<results>/logs/fluid.log",
    conda:
        "../../environment.yml"
    params:
        config=[product.fingerprint for product in FIRST_PRODUCTS],
        overrides=shlex.join(
            dict.fromkeys(text for made in FIRST_PRODUCTS for text in made.overrides)
        ),
    shell:
        "(python -m marlin.fluid_validation {params.overrides} --profiles {input.profiles}"
        " --output {output.fluid}"
        " && python -m marlin.seal {output.seal} {output.fluid}) > {log} 2>&1"
