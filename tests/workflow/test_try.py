import time
def test_a(trained):
    for k in ("full","lora"):
        t=time.time(); r=trained(k); print(time.time()-t, r.folder); print(r.rows, r.text)
        import json; print(json.dumps(r.as_dict(),indent=0,allow_nan=False)[:100])
