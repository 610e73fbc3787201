/* Inside the Hugging Face reader: hf.c reads the directory, hf_config.c the hyperparameters. */
#ifndef MCC_FRONTEND_HF_H
#define MCC_FRONTEND_HF_H

#include "compiler/frontend/json.h"
#include "compiler/frontend/source.h"

/* Finds the architecture and fills model->config from config.json, named `file`. `root` lives on
 * the caller's side; nothing of it is kept. Reports everything that is missing, wrong or not
 * supported. */
bool fe_hf_config(fe_model *model, const cJSON *root, const char *file, ir_diag *diag);

/* Adds eos_token_id, one id or a list of them. */
bool fe_hf_eos(fe_config *config, const cJSON *object, const char *file, ir_diag *diag);

#endif
