rule features:
    input:
        lambda w: f"results/{w.scene}/{'cube' if w.input == 'hsi' else 'rgb'}.zarr",
    output:
        directory("results/{scene}/features-{input}.zarr"),
    log:
        "logs/{scene}/features-{input}.log",
    benchmark:
        "benchmarks/{scene}/features-{input}.tsv"
    conda:
        "../envs/special.yaml"
    params:
        settings=lambda w: flags(
            {
                "input": w.input,
                "percentiles": settings["features"]["stretch"],
                "components": settings["features"]["components"],
            }
        ),
        code=digest_of("features"),
    shell:
        "python -m special_steps.features --source {input} --out {output}"
        " {params.settings} &> {log}"


rule warmup:
    input:
        features=lambda w: f"results/{w.scene}/features-{RUNS[w.run]['input']}.zarr",
        pseudo="results/{scene}/{run}/pseudo.zarr",
    output:
        prediction=directory("results/{scene}/{run}/seed-{seed}/warmup.zarr"),
        state="results/{scene}/{run}/seed-{seed}/warmup.safetensors",
        epochs="results/{scene}/{run}/seed-{seed}/warmup.csv",
    log:
        "logs/{scene}/{run}/seed-{seed}/warmup.log",
    benchmark:
        "benchmarks/{scene}/{run}/seed-{seed}/warmup.tsv"
    conda:
        "../envs/special.yaml"
    threads: 8
    resources:
        gpu=1,
    params:
        checkpoint=lambda w: f"results/{w.scene}/{w.run}/seed-{w.seed}/.warmup.safetensors",
        settings=lambda w: flags(
            {k: RUNS[w.run][k] for k in ("classifier", "training")}
        ),
        code=digest_of("warmup"),
    shell:
        "python -m special_steps.warmup --features {input.features} --pseudo {input.pseudo}"
        " --seed {wildcards.seed} --checkpoint {params.checkpoint} --out {output.prediction}"
        " --state {output.state} --epochs {output.epochs} {params.settings} &> {log}"


rule refine:
    input:
        features=lambda w: f"results/{w.scene}/features-{RUNS[w.run]['input']}.zarr",
        pseudo="results/{scene}/{run}/pseudo.zarr",
        warmup="results/{scene}/{run}/seed-{seed}/warmup.safetensors",
    output:
        prediction=directory("results/{scene}/{run}/seed-{seed}/final.zarr"),
        state="results/{scene}/{run}/seed-{seed}/final.safetensors",
        epochs="results/{scene}/{run}/seed-{seed}/refine.csv",
    log:
        "logs/{scene}/{run}/seed-{seed}/refine.log",
    benchmark:
        "benchmarks/{scene}/{run}/seed-{seed}/refine.tsv"
    conda:
        "../envs/special.yaml"
    threads: 8
    resources:
        gpu=1,
    params:
        checkpoint=lambda w: f"results/{w.scene}/{w.run}/seed-{w.seed}/.refine.safetensors",
        settings=lambda w: flags(
            {k: RUNS[w.run][k] for k in ("classifier", "training")}
            | {"refinement": RUNS[w.run]["refine"]}
        ),
        code=digest_of("refine"),
    shell:
        "python -m special_steps.refine --features {input.features} --pseudo {input.pseudo}"
        " --warmup {input.warmup} --seed {wildcards.seed} --checkpoint {params.checkpoint}"
        " --out {output.prediction} --state {output.state} --epochs {output.epochs}"
        " {params.settings} &> {log}"
